"""Sets of pictures, wherever they lie: a folder, ADM's .npz, the samples of a run. One size each, named by content."""

import hashlib
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from components.collection.source import FolderSource
from components.errors import ConfigError, DataError, MissingError
from components.files import file_sha256
from components.images.config import DecodeRecipe

if TYPE_CHECKING:
    from components.metrics.gaussian import Gaussian

_RECIPE = DecodeRecipe(background=(255, 255, 255), max_pixels=2**26)
_SHEETS = ("grid.png", "nearest.png", "prompts.png")
_STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")
_MOST_NUMBERS = 2**24
"""Of one array of statistics: FID's have 2,048 x 2,048."""
_BATCH_BYTES, _PIECE_BYTES, _HEADING_BYTES = 2**28, 2**20, 2**14
_FIX_NPZ = "write arr_0 as (n, h, w, 3) uint8, with np.savez(file, images) or `rcg sample --npz`"


class PictureSet(Protocol):
    """Pictures of one size."""

    name: str
    """As the person called it."""
    digest: str
    """Of the content: equal digests, equal pictures in equal order."""
    n: int
    sampled: Mapping[str, Any]
    """How the pictures were sampled; empty where it is not known."""

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """All pictures in order. Shapes: (b_i, h, w, 3) uint8. Raises: DataError."""
        ...


@dataclass(frozen=True)
class StoredStatistics:
    """What ADM's reference files know of their set besides pictures: of FID's Inception."""

    pooled: "Gaussian"
    spatial: "Gaussian | None"


class Folder:
    """Every picture below a folder, in the order of the names; with `px`, center squares of that side.

    The sheets that `rcg sample` writes beside its pictures are no pictures of the set.
    """

    sampled: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, root: Path, px: int | None) -> None:
        self._source, self.name, self._px = FolderSource(root), str(root), px
        keys = [item.key for item in self._source.list() if not item.is_metadata]
        self._keys = [key for key in keys if key not in _SHEETS] if "0000.png" in keys else keys
        self.n = len(self._keys)
        if not self.n:
            raise DataError("the folder has no pictures", got=f"{root}; left out: {self._source.left_out}")
        pins = "".join(hashlib.sha256(self._source.read(key)).hexdigest() for key in self._keys)
        self.digest = hashlib.sha256(pins.encode()).hexdigest()

    def batches(self, size: int) -> Iterator[np.ndarray]:
        first: tuple[str, tuple[int, ...]] | None = None
        for start in range(0, self.n, size):
            images = []
            for key in self._keys[start : start + size]:
                image = self._read(key)
                first = first or (key, image.shape)
                if image.shape != first[1]:
                    raise DataError(
                        f"the pictures in {self.name} have several sizes",
                        got=f"{_size(first[1])} of {first[0]}, {_size(image.shape)} of {key}",
                        expected="one size",
                        fix="--px 256 takes the center square of every picture, at 256 pixels",
                    )
                images.append(image)
            yield np.stack(images)

    def _read(self, key: str) -> np.ndarray:
        from components.images.decode import decode, square

        try:
            image = decode(self._source.read(key), _RECIPE)
        except DataError as error:
            raise DataError(f"{key} in {self.name} cannot be used", got=error.what, fix="remove or mend it") from error
        return np.asarray(image) if self._px is None else square(image, self._px)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"


class Npz:
    """ADM's file format: pictures as arr_0 (n, h, w, 3) uint8, and in references mu, sigma, mu_s, sigma_s."""

    sampled: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        try:
            self.digest = file_sha256(path)
            with zipfile.ZipFile(path) as archive:
                self._members = {name.removesuffix(".npy") for name in archive.namelist()}
        except Exception as error:  # parsers raise anything at all on damaged bytes
            raise DataError(f"{path} is no whole .npz file", got=error, fix=_FIX_NPZ) from error
        if "arr_0" not in self._members and not {"mu", "sigma"} <= self._members:
            raise DataError(
                f"{path} holds neither pictures nor statistics",
                got=", ".join(sorted(self._members)[:8]) or "nothing",
                expected="arr_0, or mu and sigma",
                fix=_FIX_NPZ,
            )
        self.n = self._checked_shape()[0] if "arr_0" in self._members else 0

    @property
    def statistics(self) -> StoredStatistics | None:
        """Raises: DataError for statistics that are none."""
        from components.metrics.gaussian import Gaussian

        if not {"mu", "sigma"} <= self._members:
            return None
        try:
            held = {name: self._numbers(name) for name in _STATISTICS if name in self._members}
        except Exception as error:  # as above
            raise DataError(f"the statistics of {self.path} cannot be read", got=error) from error
        pairs = [(held[a], held[b]) for a, b in (("mu", "sigma"), ("mu_s", "sigma_s")) if a in held and b in held]
        for mean, cov in pairs:
            is_finite = np.isfinite(mean).all() and np.isfinite(cov).all()
            if mean.ndim != 1 or cov.shape != (len(mean), len(mean)) or not is_finite:
                raise DataError(
                    f"the statistics of {self.path} are none",
                    got=(mean.shape, cov.shape),
                    expected="mu (d,) and sigma (d, d), all finite",
                )
        fitted = [Gaussian(mean, cov) for mean, cov in pairs]
        return StoredStatistics(fitted[0], fitted[1] if len(fitted) > 1 else None)

    def _numbers(self, name: str) -> np.ndarray:
        """An array of statistics, in memory that its heading cannot choose. Raises: anything at all."""
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
            shape, fortran, dtype = _header(file)
            if dtype.kind != "f" or not 0 <= math.prod(shape) <= _MOST_NUMBERS:
                raise ValueError(f"{name} is {shape} {dtype}")
            numbers = _read(file, math.prod(shape) * dtype.itemsize).view(dtype)
        return numbers.reshape(shape, order="F" if fortran else "C").astype(np.float64, order="C", copy=False)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        shape = self._checked_shape()
        each = math.prod(shape[1:])
        size = max(1, min(size, _BATCH_BYTES // each))
        with zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as file:
            _header(file)
            for start in range(0, shape[0], size):
                rows = min(size, shape[0] - start)
                try:
                    data = _read(file, rows * each)
                except EOFError:
                    what = f"{self.path} ends too early"
                    raise DataError(what, got=f"after picture {start}", expected=shape[0]) from None
                except Exception as error:  # as above
                    raise DataError(f"{self.path} is damaged", got=error, fix="copy it again") from error
                yield data.reshape(rows, *shape[1:])

    def _checked_shape(self) -> tuple[int, ...]:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as file:
                shape, fortran, dtype = _header(file)
        except Exception as error:  # as above
            raise DataError(f"arr_0 of {self.path} cannot be read", got=error, fix=_FIX_NPZ) from error
        if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8 or fortran or min(shape) < 1:
            raise DataError(
                f"arr_0 of {self.path} does not hold pictures",
                got=f"{shape} {dtype}{', column by column' * fortran}",
                expected="(n, h, w, 3) uint8",
                fix=_FIX_NPZ,
            )
        if shape[1] * shape[2] > _RECIPE.max_pixels:
            got, expected = f"{shape[2]} x {shape[1]}", f"at most {_RECIPE.max_pixels} pixels"
            raise DataError(f"the pictures of {self.path} are too large", got=got, expected=expected)
        return shape


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    short = _Short(file)
    version = np.lib.format.read_magic(short)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(short)
    return shape, fortran, dtype


class _Short:
    """A file of which no more than a heading is read, whatever length it says: numpy reads first and looks then."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _HEADING_BYTES:
            raise ValueError(f"its heading is of {size} bytes")
        return self._file.read(size)


def _read(file: IO[bytes], n_bytes: int) -> np.ndarray:
    """Exactly so many bytes, in memory that grows as they come. Raises: EOFError; anything else of damaged ones."""
    data, done = np.empty(n_bytes, np.uint8), 0
    while done < n_bytes:
        piece = file.read(min(_PIECE_BYTES, n_bytes - done))
        if not piece:
            raise EOFError(f"{done} of {n_bytes} bytes")
        data[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    return data


class First:
    """The first n of a set."""

    def __init__(self, pictures: PictureSet, n: int) -> None:
        if pictures.n < n:
            raise ConfigError(
                "a set has fewer pictures than are asked for",
                got=f"{pictures.n} in {pictures.name}",
                expected=f"{n} or more",
                fix=f"-n {pictures.n}",
            )
        self.of, self.n, self.name, self.sampled = pictures, n, pictures.name, pictures.sampled
        self.digest = pictures.digest if n == pictures.n else f"{pictures.digest}, first {n}"

    def batches(self, size: int) -> Iterator[np.ndarray]:
        left = self.n
        for images in self.of.batches(size):
            yield images[:left]
            left -= len(images)
            if left <= 0:
                return


class Every:
    """Every second picture of a set, from the first (0) or the second (1) on."""

    def __init__(self, pictures: PictureSet, start: int) -> None:
        self._of, self._start, self.name, self.sampled = pictures, start, pictures.name, pictures.sampled
        self.n = (pictures.n + 1 - start) // 2
        self.digest = f"{pictures.digest}, every second from {start}"

    def batches(self, size: int) -> Iterator[np.ndarray]:
        seen = 0
        for images in self._of.batches(size):
            kept = images[(self._start - seen) % 2 :: 2]
            seen += len(images)
            if len(kept):
                yield kept


def open_set(where: str, px: int | None) -> Folder | Npz:
    """A folder or an .npz file. Raises: MissingError, DataError."""
    path = Path(where)
    if path.is_dir():
        return Folder(path, px)
    if path.is_file():
        return Npz(path)
    raise MissingError(
        "there are no pictures there",
        got=where,
        expected="a folder, an .npz file, `sample` or a bundle",
    )
