"""Where a generated picture came from: a record in its PNG file, and the check of the bundle that it names.

The record is a claim, not a signature: `rcg verify` draws the picture again and compares. Nothing here needs torch but
platform_facts().
"""

import json
import platform
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from components.bundle.integrity import MANIFEST, digest_of_files, find_damage, read_files
from components.config import Config
from components.documents import first_fault, parse_mapping
from components.errors import ArtifactError, DataError, TamperedError
from components.images.png import SIGNATURE

SCHEMA = 1
KEYWORD = "rcg.provenance"

_MOST_DRAWN = 10_000
_MOST_TEXT = 2**20
_WHERE, _FIX = "the picture's provenance", "use the original file"


class Provenance(Config):
    """Enough to draw the picture again: image `index` of the request for images first … first + n - 1 of the seed."""

    schema_version: int
    bundle: str | None
    """Content digest of the bundle that drew it; None: the sample stage did, with `parents`."""
    parents: dict[str, str]
    """Stage -> content digest of what the sample stage drew with."""
    seed: int = Field(ge=0)
    """Seed of the request."""
    index: int | None = Field(ge=0)
    """Number of the image; None for a grid."""
    first: int = Field(ge=0)
    """Number of the request's first image."""
    n: int = Field(ge=1)
    """Images in the request. With `first` and sampling.batch_size it says which images were drawn together."""
    shown: int | None = Field(ge=1)
    """Images on a grid, the first ones of the request."""
    columns: int | None = Field(ge=1)
    """Columns of a grid, where they were chosen."""
    condition: dict[str, str]
    """class: its name. text: the texts, one in a line, each of as many images. like, between,
    representation: sha256 of what was given. share: of the second picture.
    image, mask: sha256 of a picture and of the mask of what is filled in; free: its representation is sampled;
    upscale: made larger, the image of that picture where it says one.
    oracle, captions: the split of real images that they are of."""
    sampling: dict[str, Any]
    """All sampling options in effect; fields of components.bundle.system.SystemSampling."""
    platform: dict[str, str] | None
    """Where it was drawn, see platform_facts(); None in a stage's outputs, which hold no places."""

    @property
    def batch(self) -> range:
        """Positions in the request of the images to draw again: the micro-batches that hold what the picture shows."""
        size = self.sampling["batch_size"]
        if self.index is None:
            return range(min(self.n, -(-(self.shown or self.n) // size) * size))
        start = (self.index - self.first) // size * size
        return range(start, min(self.n, start + size))

    def check(self) -> None:
        """Raises: ArtifactError for numbers that do not go together."""
        size = self.sampling.get("batch_size")
        whole = isinstance(size, int) and not isinstance(size, bool) and size >= 1
        inside = self.shown is not None and self.shown <= self.n
        if self.index is not None:
            inside = self.shown is None and self.first <= self.index < self.first + self.n
        if not whole or not inside or len(self.batch) > _MOST_DRAWN:
            raise _forged(f"image {self.index} of {self.n} from {self.first}, {size} at a time")


def with_provenance(png: bytes, provenance: Provenance) -> bytes:
    """The PNG with the record as its first text chunk; equal inputs give equal bytes."""
    text = json.dumps(provenance.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()
    end_of_header = len(SIGNATURE) + 8 + 13 + 4
    chunk = _chunk(b"tEXt", KEYWORD.encode() + b"\0" + text)
    return png[:end_of_header] + chunk + png[end_of_header:]


def read_provenance(data: bytes) -> Provenance:
    """The record in a PNG file.

    Raises: DataError for what is no whole PNG; ArtifactError when there is no record, several, or one that rcg cannot
    have written.
    """
    found = [body for kind, body in _chunks(data) if kind == b"tEXt" and body.startswith(KEYWORD.encode() + b"\0")]
    if not found:
        raise ArtifactError(
            "the picture does not say where it came from",
            expected=f"a PNG text chunk {KEYWORD}",
            fix="use the file as `rcg sample` wrote it: most programs drop such chunks when they save a picture",
        )
    if len(found) > 1:
        raise _forged(f"{len(found)} records in one picture")
    values = parse_mapping(found[0].partition(b"\0")[2], _WHERE, fix=_FIX)
    version = values.get("schema_version")
    if isinstance(version, int) and version > SCHEMA:
        raise ArtifactError(
            "the picture's provenance was written by a newer version of this program",
            got=f"schema_version {version}",
            expected=f"at most {SCHEMA}",
            fix="update this checkout",
        )
    try:
        provenance = Provenance.model_validate(values)
    except ValidationError as error:
        raise _forged(first_fault(error)) from error
    provenance.check()
    return provenance


def _forged(got: object) -> ArtifactError:
    return ArtifactError(f"{_WHERE} is not as rcg writes it: edited or forged", got=got, fix=_FIX)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) of each chunk. Raises: DataError for a file that is no PNG, torn or altered."""
    if not data.startswith(SIGNATURE):
        raise DataError("not a PNG file", got=repr(data[:8]), fix="name a picture that `rcg sample` wrote")
    start, kind = len(SIGNATURE), b""
    while start < len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        body, end = data[start + 8 : start + 8 + length], start + 12 + length
        kind = data[start + 4 : start + 8]
        if end > len(data) or data[start + 8 + length : end] != struct.pack(">I", zlib.crc32(kind + body)):
            raise DataError("the PNG file is torn or altered", got=f"chunk {kind!r} at byte {start}")
        yield kind, body
        start = end
    if kind != b"IEND":
        raise DataError("the PNG file is torn or altered", got=f"its end is missing, after byte {start}")


def platform_facts(device: str) -> dict[str, str]:
    """All that moves the low-order bits of an image drawn from the same bundle and seed."""
    import torch

    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else ""
    return {
        "machine": platform.machine(),
        "processor": gpu or _processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
        "threads": str(torch.get_num_threads()),
    }


def _processor() -> str:
    """Model name of the CPU; its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def check_bundle(folder: Path) -> str:
    """The content digest of a bundle whose files are as its manifest commits them; asked before any is used.

    Raises: TamperedError naming what was altered, lost or added.
    """
    files = read_files(folder)
    damage = find_damage(folder, files)
    if damage:
        raise TamperedError(
            f"the bundle {folder} is damaged",
            got=", ".join(damage[:5]) + (f", and {len(damage) - 5} more" if len(damage) > 5 else ""),
            expected=f"the files that its {MANIFEST} names, and no others",
            fix="copy it again, or `rcg run bundle`, which mends artifacts/bundle and the manifest of its run",
        )
    return digest_of_files(files)
