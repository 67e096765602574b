"""Tar files, WebDataset's among them: headings are walked once, then each picture is one range."""

import tarfile
import threading
from collections.abc import Iterator

from components.collection.archives.blob import Blob, BlobStream
from components.collection.archives.directory import Directory, Intake, Place
from components.collection.source_base import LeftOut
from components.errors import DataError

_MOST_HEADING = 64 * 2**20
_PIECE = 2**20


class TarArchive:
    """One uncompressed tar file."""

    def __init__(self, blob: Blob) -> None:
        self._blob, self._lock = blob, threading.Lock()
        self.held_bytes = blob.shelf.window_bytes
        self._stream = BlobStream(blob, _MOST_HEADING)

    def directory(self, left_out: LeftOut) -> Directory:
        """Walk over all headings. Raises: DataError naming the member after which the archive is damaged."""
        intake = Intake(self._blob.name, left_out)
        with self._lock:
            try:
                self._stream.seek(0)
                with tarfile.open(fileobj=self._stream, mode="r:", encoding="utf-8") as tar:
                    self._walk(tar, intake)
            except (tarfile.TarError, UnicodeError, ValueError, OverflowError) as error:
                raise self._damaged(intake.at, error) from error
        return intake.finish()

    def _walk(self, tar: tarfile.TarFile, intake: Intake) -> None:
        behind = -1
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # or it would remember each
            if member.size < 0 or tar.offset <= behind:
                raise self._damaged(intake.at, "a member of negative size")  # tarfile would go round in circles
            behind = tar.offset
            name = intake.name_of(member.name)
            if name is None or member.isdir():
                continue
            if not member.isreg() or member.issparse():
                intake.left_out.kinds["that is no file"] += 1
            elif (kind := intake.takes(name, member.size)) == "text":
                file = tar.extractfile(member)
                intake.sidecars.add(name, file.read() if file else b"")
            elif kind:
                intake.add(name, Place(member.offset_data, member.size, member.size))
        self._stream.seek(tar.offset)
        if self._stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise self._damaged(intake.at, "no end where the end should be")

    def read(self, _name: str, place: Place) -> bytes:
        return self._blob.read(place.offset, place.offset + place.packed)

    def pieces(self, _name: str, place: Place) -> Iterator[bytes]:
        """The bytes in turn; reads on from one picture to the next."""
        with self._lock:
            self._stream.seek(place.offset)
            for start in range(0, place.packed, _PIECE):
                yield self._stream.read(min(_PIECE, place.packed - start))

    def _damaged(self, at: str, why: object) -> DataError:
        where = f"after its member {at}" if at else "from its start"
        return DataError(
            f"{self._blob.name} is damaged or cut off {where}",
            got=why,
            expected="an uncompressed tar file",
            fix="copy it again, or unpack it and make it anew (`tar --create`, without compression)",
        )
