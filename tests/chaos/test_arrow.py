"""Files and tables of Arrow, and claims in pictures, whatever is in them."""

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.arrow_files import read_arrow
from components.bundle.provenance import KEYWORD, read_provenance
from components.cache.reader import open_cache
from components.collection import near_index
from components.collection.duplicates import near_pairs
from components.collection.images import index_bytes, read_index, read_table
from components.collection.near_index import NearIndex
from components.collection.notes import Note, Notes, NotJoinedError
from components.errors import RcgError
from components.images.png import SIGNATURE
from components.target import TargetSpec
from tests.chaos.test_bombs import chunk, png
from tests.support.caches import make_cache
from tests.support.claims import a_claim
from tests.support.folders import FolderArtifact
from tests.support.mutations import documents

MORE = int(os.environ.get("CHAOS_MORE", "1"))
PIXEL = TargetSpec(space="pixels", shape=(1, 4, 4), dtype="uint8", n_codes=None, image_px=4)
ROW = {"sha256": "0" * 64, "size": 3, "width": 8, "height": 8, "hash": bytes(16), "constant": False}
INDEX = index_bytes(
    [{**ROW, "key": f"é{i}.png", "split": "train", "label": None, "caption": ["a", "b"]} for i in range(5)]
)


def tries(n: int) -> settings:
    return settings(
        max_examples=n * MORE,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


@tries(60)
@given(data=documents(INDEX))
def test_indices_of_pictures(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "index.arrow"
    path.unlink(missing_ok=True)  # it may be mapped into memory
    path.write_bytes(data)
    with contextlib.suppress(RcgError):
        read_index(data, "the index").to_pylist()
    with contextlib.suppress(RcgError):
        read_table([path]).to_pylist()


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("values", [pa.array(bytes(2**20)), pa.array([bytes(2**20)]).dictionary_encode()])
def test_compressed_batches_are_refused_before_they_unpack(codec: str, values: pa.Array, tmp_path: Path) -> None:
    table, path = pa.table({"x": values}), tmp_path / "index.arrow"
    with pa.ipc.new_file(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    assert path.stat().st_size < 2**17
    before = pa.total_allocated_bytes()
    with pytest.raises(RcgError, match="compressed"):
        read_table([path])
    assert pa.total_allocated_bytes() == before


def test_a_file_without_its_last_batches_is_not_whole(tmp_path: Path) -> None:
    """Two batches, as its footer says, but the first ends the stream."""
    sink, table = pa.BufferOutputStream(), pa.table({"x": [1, 2, 3]})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    whole = sink.getvalue().to_pybytes()
    _schema, _first, start, _end = (found.start() for found in re.finditer(b"\xff{4}", whole))
    cut = whole[:start] + b"\xff\xff\xff\xff\0\0\0\0" + whole[start + 8 :]
    assert read_arrow(whole, "it").num_rows == 3
    with pytest.raises(RcgError, match="1 of the 2 batches"):
        read_arrow(cut, "it")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FolderArtifact:
    return make_cache(tmp_path_factory.mktemp("cache"), PIXEL)


@tries(60)
@given(data=st.data())
def test_shards(data: st.DataObject, cache: FolderArtifact) -> None:
    path = cache.path("shards/c00000.arrow")
    whole = path.read_bytes()
    changed = data.draw(documents(whole))
    path.unlink()  # it may be mapped into memory
    path.write_bytes(changed)
    try:
        with contextlib.suppress(RcgError):
            opened = open_cache(cache, "whole")
            opened.count()
            split = opened.training()
            split.batch(np.arange(len(split)), np.zeros(len(split), np.int64))
            split.keys(np.arange(len(split)))
    finally:
        path.unlink()
        path.write_bytes(whole)


@tries(200)
@given(text=documents(json.dumps(a_claim().model_dump(mode="json")).encode()))
def test_claims_of_pictures(text: bytes) -> None:
    head = len(SIGNATURE) + 25
    plain = png(8)
    with contextlib.suppress(RcgError):
        read = read_provenance(plain[:head] + chunk(b"tEXt", KEYWORD.encode() + b"\0" + text) + plain[head:])
        assert read.batch.step == 1
        json.dumps(read.model_dump(mode="json"))


def _joined(rows: list[tuple[str, Note]]) -> dict[str, Note] | int:
    """The notes of each picture, or the number of the first row that does not fit."""
    found: dict[str, Note] = {}
    for i, (key, note) in enumerate(rows):
        both = found[key].joined(note) if key in found else note
        if both is None:
            return i
        found[key] = both
    return found


@tries(80)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "é"]),
            st.builds(
                Note, st.none() | st.just("l"), st.lists(st.sampled_from("xy"), max_size=2).map(tuple), st.none()
            ),
        ),
        max_size=6,
    )
)
def test_notes_are_what_a_dict_of_them_is(rows: list[tuple[str, Note]]) -> None:
    expected = _joined(rows)
    try:
        found: Any = dict(Notes(rows))
    except NotJoinedError as error:
        found = error.row
    assert found == expected


@tries(25)
@given(
    max_bits=st.integers(0, 12),
    sizes=st.lists(st.integers(0, 40), max_size=12),
    few=st.integers(1, 30),
    seed=st.integers(0, 2**32),
)
def test_near_duplicates_are_those_of_comparing_all(max_bits: int, sizes: list[int], few: int, seed: int) -> None:
    rng, seen, index = np.random.default_rng(seed), np.empty((0, 2), np.uint64), NearIndex(max_bits)
    kinds = rng.integers(0, 2, (few, 128), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_TAIL", 16), ("_COMMON", 5), ("_AT_ONCE", 7), ("_FAN_IN", 3)):
            patch.setattr(near_index, name, value)
        for size in sizes:
            bits = kinds[rng.integers(0, few, size)] ^ (rng.random((size, 128)) < 0.03)
            words = np.packbits(bits, axis=1).view(np.uint64)
            found = {(int(i), int(v)) for some, of in index.near(words) for i, v in zip(some, of, strict=True)}
            pairs = near_pairs(words, seen, max_bits)
            assert found == {(int(i), int(j) % 251) for some, of in pairs for i, j in zip(some, of, strict=True)}
            index.add(words, ((len(seen) + np.arange(size)) % 251).astype(np.uint8))
            seen = np.concatenate([seen, words])
