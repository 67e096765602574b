"""Zip files: the central directory is read once, then each picture is one range."""

import struct
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from components.collection.archives.blob import Blob, BlobStream
from components.collection.archives.directory import Directory, Intake, Place
from components.collection.source_base import LeftOut
from components.errors import DataError

_LOCAL = struct.Struct("<4s22xHH")
"""Signature, and lengths of name and extra field, of the heading before a member."""
_SLACK = 512
_PIECE = 2**20
_ENCRYPTED = 1


class ZipArchive:
    """One zip file with stored or deflated members."""

    def __init__(self, blob: Blob) -> None:
        self._blob, self._lock = blob, threading.Lock()
        self.held_bytes = blob.shelf.window_bytes
        self._stream = BlobStream(blob)

    def directory(self, left_out: LeftOut) -> Directory:
        """Raises: DataError for a damaged directory, or a member that is encrypted, packed otherwise or overlaps."""
        intake = Intake(self._blob.name, left_out)
        with self._lock:
            try:
                with zipfile.ZipFile(self._stream) as file:
                    infos = file.infolist()
                    self._refuse_overlaps(infos, file.start_dir)
            except DataError:
                raise
            except Exception as error:  # zipfile raises anything at all on damaged bytes
                raise self._damaged("", error) from error
        for info in infos:
            self._take(info, intake)
        return intake.finish()

    def _take(self, info: zipfile.ZipInfo, intake: Intake) -> None:
        name = intake.name_of(info.filename.replace("\\", "/"))
        if name is None or info.is_dir():
            return
        kind = intake.takes(name, info.file_size)
        if kind is None:
            return
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            how = "encrypted" if info.flag_bits & _ENCRYPTED else f"packed by method {info.compress_type}"
            raise DataError(
                f"{self._blob.name}: its member {name} is {how}",
                expected="stored or deflated members, without a password",
                fix="unpack it, and pack it again (`zip -r`)",
            )
        place = Place(info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type)
        if kind == "text":
            intake.sidecars.add(name, b"".join(self.pieces(name, place)))
        else:
            intake.add(name, place)

    def _refuse_overlaps(self, infos: list[zipfile.ZipInfo], end: int) -> None:
        """Raises: DataError for members that share bytes: a small file that unpacks to a huge one."""
        starts = np.array([info.header_offset for info in infos], np.int64)
        sizes = np.array([30 + len(info.orig_filename) + info.compress_size for info in infos], np.int64)
        order = np.argsort(starts, kind="stable")
        reach, limit = (starts + sizes)[order], np.append(starts[order][1:], end)
        wrong = np.flatnonzero((reach > limit) | (starts[order] < 0))
        if len(wrong):
            raise self._damaged(infos[int(order[wrong[0]])].filename, "it overlaps another, as in a zip bomb")

    def read(self, name: str, place: Place) -> bytes:
        """Raises: DataError when it does not unpack to what the directory says."""
        first = self._blob.read(place.offset, place.offset + _LOCAL.size + _SLACK + place.packed)
        start = self._data_start(first, name)
        packed = first[start : start + place.packed]
        packed += self._blob.read(place.offset + len(first), place.offset + start + place.packed)
        return b"".join(self._unpacked([packed], name, place))

    def pieces(self, name: str, place: Place) -> Iterator[bytes]:
        """The bytes in turn; reads on from one picture to the next."""
        with self._lock:
            yield from self._unpacked(self._packed(name, place), name, place)

    def _packed(self, name: str, place: Place) -> Iterator[bytes]:
        self._stream.seek(place.offset)
        start = self._data_start(self._stream.read(_LOCAL.size), name)
        self._stream.seek(place.offset + start)
        for at in range(0, place.packed, _PIECE):
            yield self._stream.read(min(_PIECE, place.packed - at))

    def _data_start(self, heading: bytes, name: str) -> int:
        if len(heading) < _LOCAL.size or not heading.startswith(b"PK\x03\x04"):
            raise self._damaged(name, "no heading there")
        _, n_name, n_extra = _LOCAL.unpack_from(heading)
        return _LOCAL.size + int(n_name) + int(n_extra)

    def _unpacked(self, packed: Iterable[bytes], name: str, place: Place) -> Iterator[bytes]:
        n = crc = 0
        try:
            for piece in _inflated(packed) if place.method == zipfile.ZIP_DEFLATED else packed:
                n, crc = n + len(piece), zlib.crc32(piece, crc)
                if n > place.size:
                    break
                yield piece
        except zlib.error as error:
            raise self._damaged(name, error) from error
        if n != place.size or crc != place.crc:
            raise self._damaged(name, "its length or checksum is not as the directory says")

    def _damaged(self, member: str, why: object) -> DataError:
        return DataError(
            f"{self._blob.name} is damaged" + (f": its member {member}" if member else ""),
            got=why,
            expected="a zip file",
            fix="copy it again, or make it anew",
        )


def _inflated(packed: Iterable[bytes]) -> Iterator[bytes]:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in packed:
        rest = chunk
        while rest:
            yield engine.decompress(rest, _PIECE)
            rest = engine.unconsumed_tail
    yield engine.flush(_PIECE)
