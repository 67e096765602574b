"""Small files that ask for much: refused early, with bounded memory."""

import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.bundle.provenance import KEYWORD, read_provenance
from components.collection.lock import MetadataFile
from components.collection.metadata import read_notes
from components.collection.source import FolderSource, open_source
from components.errors import RcgError
from components.images.config import DecodeRecipe
from components.images.decode import decode
from components.weights import read_tables
from flows.evaluation.sets import Npz
from flows.identity.artifact import digest_of
from flows.lineage.verification import shown_pixels
from flows.pipeline.params import load_params
from flows.runs.records import Spec

ROOT = Path(__file__).parents[2]
RECIPE = DecodeRecipe(background=(255, 255, 255), max_pixels=50_000_000)
MOST_MIB, MOST_S = 150, 20


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(side: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def aliases(merge: bool) -> str:
    """10^9 values in 10 lines."""
    key = "<<: " if merge else ""
    lines = ["a0: &a0 {x: 1}" if merge else "a0: &a0 [x]"]
    for i in range(1, 10):
        inside = f"[{', '.join([f'*a{i - 1}'] * 10)}]"
        lines.append(f"a{i}: &a{i} {{{key}{inside}}}" if merge else f"a{i}: &a{i} {inside}")
    return "\n".join(lines)


def swollen(path: Path) -> None:
    torch.save({"model": {"w": torch.zeros(1).expand(10**12)}}, path)


def packed(path: Path) -> None:
    """A torch file whose one record unpacks to 256 MiB."""
    torch.save({"model": {"w": torch.zeros(64)}}, plain := path.with_suffix(".plain"))
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, bytes(2**28) if info.filename.endswith("data/0") else data)


def long_heading(path: Path) -> Path:
    """An .npz whose array begins with a heading of 256 MiB."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("arr_0.npy", "w") as array,
    ):
        array.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**28))
        for _ in range(2**8):
            array.write(bytes(2**20))
    return path


_ZEROS = """
import sys, pyarrow as pa, pyarrow.parquet as pq
how = {"compression": "zstd", "use_dictionary": sys.argv[2] == "dictionary"}
zeros = [pa.array([bytes(2**28)]) for _ in range(int(sys.argv[3]))]
pq.write_table(pa.table({"image": pa.chunked_array(zeros)}), sys.argv[1], **how)
"""


def zeros_in_parquet(path: Path, encoding: str, rows: int = 1) -> Path:
    """Pictures of 256 MiB in a few KiB. In a process of its own, whose memory is not counted."""
    subprocess.run([sys.executable, "-c", _ZEROS, path, encoding, str(rows)], check=True)
    return path


def scripted(path: Path, data: bytes) -> Path:
    """A TorchScript archive: this pickle, and 4 MiB of numbers."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/code/x.py", b"")
        file.writestr("a/data.pkl", data)
        file.writestr("a/data/0", bytes(2**22))
    return path


MODULE = b"c__torch__\nM\n)\x81"


def modules_in_modules() -> bytes:
    """10^9 names in 10 modules: each is ten times in the next."""
    inner = MODULE + b"}(" + b"".join(b"X\x01\0\0\0%dK\x01" % i for i in range(10)) + b"ub"
    for k in range(9):
        inner += (
            b"q"
            + bytes([k])
            + b"0"
            + MODULE
            + b"}("
            + b"".join(b"X\x01\0\0\0%dh%c" % (i, k) for i in range(10))
            + b"ub"
        )
    return b"\x80\x02" + inner + b"."


def numbers_again_and_again() -> bytes:
    """A module of 500 tensors, each of all the numbers that there are."""
    pid = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuJ\0\0\x10\0tQ"
    one = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"K\0J\0\0\x10\0\x85K\x01\x85tR"
    return b"\x80\x02" + MODULE + b"}(" + b"".join(b"X\x03\0\0\0%03d" % i + one for i in range(500)) + b"ub."


def text_bomb() -> bytes:
    return chunk(b"zTXt", KEYWORD.encode() + b"\0\0" + zlib.compress(bytes(2**26), 9))


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def deep_pickle() -> bytes:
    return b"\x80\x02" + b"]" * 200_000 + b"." + pickle.dumps(3)


def params_with(old: str, new: str) -> str:
    text = (ROOT / "presets/smoke.yaml").read_text()
    assert old in text
    return text.replace(old, new)


def notes(folder: Path, name: str, data: bytes) -> object:
    write(folder / name, data)
    return read_notes(FolderSource(folder), [MetadataFile(name, len(data), digest_of(data))])


BOMBS: dict[str, Callable[[Path], object]] = {
    "aliases": lambda tmp: load_params(write(tmp / "p.yaml", aliases(merge=False))),
    "merges": lambda tmp: load_params(write(tmp / "p.yaml", aliases(merge=True))),
    "an alias of itself": lambda tmp: load_params(write(tmp / "p.yaml", "a: &a [*a]")),
    "deep YAML": lambda tmp: load_params(write(tmp / "p.yaml", "[" * 100_000)),
    "a large YAML": lambda tmp: load_params(write(tmp / "p.yaml", "a: 1\n" * 10**6)),
    "10^12 layers": lambda tmp: load_params(write(tmp / "p.yaml", params_with("depth: 2", "depth: 1000000000000"))),
    "10^12 wide": lambda tmp: load_params(write(tmp / "p.yaml", params_with("width: 32", "width: 1000000000000"))),
    "deep JSON": lambda _: Spec.parse(b'{"a":' * 100_000, "spec.json"),
    "deep lists": lambda _: Spec.parse(b"[" * 100_000 + b"]" * 100_000, "spec.json"),
    "digits": lambda _: Spec.parse(b'{"schema_version": ' + b"9" * 10**6 + b"}", "spec.json"),
    "a wide column": lambda tmp: notes(tmp, "metadata.csv", b"file_name\n" + b"x" * 10**7),
    "a deep row": lambda tmp: notes(tmp, "metadata.jsonl", b"[" * 100_000),
    "numbers that are not there": lambda tmp: (swollen(tmp / "w.pt"), read_tables(tmp / "w.pt")),
    "compressed records": lambda tmp: (packed(tmp / "w.pt"), read_tables(tmp / "w.pt")),
    "a deep pickle": lambda tmp: read_tables(write(tmp / "w.pt", deep_pickle())),
    "modules in modules": lambda tmp: read_tables(scripted(tmp / "w.pt", modules_in_modules())),
    "numbers again and again": lambda tmp: read_tables(scripted(tmp / "w.pt", numbers_again_and_again())),
    "a place far away": lambda tmp: read_tables(scripted(tmp / "w.pt", b"\x80\x02Nr\xff\xff\xff\x0f.")),
    "a long heading": lambda tmp: Npz(long_heading(tmp / "x.npz")),
    "a Parquet page": lambda tmp: list(open_source(str(zeros_in_parquet(tmp / "x.parquet", "plain"))).list()),
    "a Parquet dictionary": lambda tmp: list(
        open_source(str(zeros_in_parquet(tmp / "x.parquet", "dictionary", 2))).list()
    ),
    "60000 x 60000": lambda _: decode(png(60_000, chunk(b"IDAT", zlib.compress(bytes(10**6)))), RECIPE),
    "60000 x 60000, verified": lambda _: shown_pixels(png(60_000, chunk(b"IDAT", zlib.compress(bytes(10**6))))),
    "no pixels": lambda _: decode(png(8), RECIPE),
    "no pixels, verified": lambda _: shown_pixels(png(8)),
    "a text that unpacks to 64 MiB": lambda _: decode(png(8, text_bomb()), RECIPE),
    "such a text, verified": lambda _: shown_pixels(png(8, text_bomb())),
    "such a text, read": lambda _: read_provenance(png(8, text_bomb())),
}


@pytest.mark.parametrize("name", BOMBS)
def test_is_refused_early(name: str, tmp_path: Path) -> None:
    outcome, grown_mib = _in_a_child(lambda: BOMBS[name](tmp_path))
    assert outcome == "refused"
    assert grown_mib < MOST_MIB


def _in_a_child(action: Callable[[], object]) -> tuple[str, int]:
    """(what came of it, by how many MiB the process grew) in a fork that may use MOST_S of processor time."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_S, MOST_S))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            action()
            outcome = "accepted"
        except RcgError:
            outcome = "refused"
        except BaseException as error:
            outcome = repr(error)[:500]
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        os.write(writer, f"{grown} {outcome}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    grown, _, outcome = text.partition(" ")
    return outcome or "killed", int(grown or 0)
