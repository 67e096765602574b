"""What one archive holds: pictures by key and where they lie, as columns, some 80 bytes each."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.collection.archives.sidecars import SIDECAR_SUFFIXES, Sidecars
from components.collection.source_base import METADATA_NAMES, LeftOut
from components.errors import DataError
from components.images.config import MOST_PIXELS, DecodeRecipe

METADATA = "metadata.jsonl"
"""The name under which an archive's captions and labels are listed."""
MOST_BYTES = DecodeRecipe(background=(0, 0, 0), max_pixels=MOST_PIXELS).max_bytes()
"""No picture is larger; nothing larger is unpacked."""
SAID = 255
"""The method of what the archive says about its pictures."""
_PLACE = np.dtype(
    [("offset", np.int64), ("packed", np.int64), ("size", np.int64), ("crc", np.uint32), ("method", np.uint8)]
)
_BATCH = 10_000


class Place(NamedTuple):
    """Where a picture lies: its first byte, or its row; bytes there, bytes unpacked; a zip's checksum and method."""

    offset: int
    packed: int
    size: int
    crc: int = 0
    method: int = 0


class Directory:
    """Names in order, and their places. `said`: metadata.jsonl about them, made of what the archive says; or empty."""

    def __init__(self, names: pa.Array, places: np.ndarray, said: bytes) -> None:
        self._names, self._places, self.said = names, places, said

    def __len__(self) -> int:
        return len(self._places)

    @property
    def nbytes(self) -> int:
        return int(self._names.nbytes) + self._places.nbytes + len(self.said)

    def items(self) -> Iterator[tuple[str, int]]:
        """(name, bytes) in key order."""
        for start in range(0, len(self), _BATCH):
            sizes = self._places["size"][start : start + _BATCH].tolist()
            yield from zip(self._names.slice(start, _BATCH).to_pylist(), sizes, strict=True)

    def find(self, name: str) -> Place | None:
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._names[middle].as_py() < name:
                low = middle + 1
            else:
                high = middle
        if low == len(self) or self._names[low].as_py() != name:
            return None
        return Place(*(int(value) for value in self._places[low]))


class Intake:
    """Members of an archive as they come; finish() makes the directory. `at`: the last member, for errors."""

    def __init__(self, archive: str, left_out: LeftOut) -> None:
        self.archive, self.left_out, self.at = archive, left_out, ""
        self.sidecars = Sidecars(archive)
        self._names: list[str] = []
        self._places: list[Place] = []
        self._done: list[tuple[pa.Array, np.ndarray]] = []
        self._has_metadata = False

    def name_of(self, raw: str) -> str | None:
        """The key of a member; None for hidden ones. Raises: DataError for a name that leads out of the archive."""
        self.at = raw
        parts = PurePosixPath(raw).parts
        if ".." in parts or parts[:1] == ("/",) or parts[:1] == ("//",):
            raise DataError(
                f"{self.archive}: a member's name leads out of the archive",
                got=raw,
                expected="a relative path",
                fix="make the archive anew",
            )
        return None if not parts or any(part.startswith(".") for part in parts) else "/".join(parts)

    def takes(self, name: str, size: int) -> Literal["picture", "text"] | None:
        """What a member of this name is for: add(), sidecars.add(), or nothing, which is remembered."""
        if PurePosixPath(name).suffix.lower() in SIDECAR_SUFFIXES and self.sidecars.takes(size):
            return "text"
        if not self.left_out.takes(name):
            return None
        if size > MOST_BYTES:
            self.left_out.kinds["larger than any picture"] += 1
            return None
        return "picture"

    def add(self, name: str, place: Place) -> None:
        """A picture or a metadata file."""
        self._has_metadata = self._has_metadata or PurePosixPath(name).name in METADATA_NAMES
        self._names.append(name)
        self._places.append(place)
        if len(self._names) == _BATCH:
            self._pack()

    def _pack(self) -> None:
        self._done.append((pa.array(self._names, pa.large_string()), np.array(self._places, _PLACE)))
        self._names, self._places = [], []

    def finish(self, said: bytes | None = None) -> Directory:
        """`said`: lines of metadata.jsonl; None: those of the sidecars.

        Raises: DataError for two members of one name, or a sidecar that cannot be read.
        """
        self._pack()
        names = pa.concat_arrays([part for part, _ in self._done])
        order = pc.sort_indices(names)
        names, places = names.take(order), np.concatenate([part for _, part in self._done])[order.to_numpy()]
        twice = np.flatnonzero(pc.equal(names[1:], names[:-1]).to_numpy(zero_copy_only=False))
        if len(twice):
            raise DataError(
                f"{self.archive} holds two members of one name",
                got=names[int(twice[0])].as_py(),
                expected="one of each",
                fix="make the archive anew",
            )
        if self._has_metadata:
            self.sidecars.leave_out(self.left_out)
            return _with_metadata(names, places, b"")
        return _with_metadata(names, places, self.sidecars.lines(names, self.left_out) if said is None else said)


def _with_metadata(names: pa.Array, places: np.ndarray, said: bytes) -> Directory:
    """The directory of these sorted names, with what is said of them as a member of its own."""
    if not said:
        return Directory(names, places, said)
    at = int(pc.sum(pc.less(names, METADATA)).as_py() or 0)
    names = pa.concat_arrays([names[:at], pa.array([METADATA], pa.large_string()), names[at:]])
    own = np.array([Place(0, 0, len(said), method=SAID)], _PLACE)
    return Directory(names, np.concatenate([places[:at], own, places[at:]]), said)
