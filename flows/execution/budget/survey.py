"""A look at the pictures before anything is made of them: how many, how large, and what is said of them."""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from components.collection.archives.source import ArchiveSource
from components.collection.duplicates import HASH_BITS, as_words, difference_hash, largest_family, near_pairs
from components.collection.facts import is_constant
from components.collection.lock import MetadataFile
from components.collection.metadata import folder_label, read_notes
from components.collection.source_base import Item, Source
from components.errors import DataError
from components.images.config import DecodeRecipe
from components.images.decode import decode
from components.spacing import evenly_spaced

MIN_IMAGES = 60
"""Below this, the held-out fifth says nothing about anything."""
DECODE = DecodeRecipe(background=(255, 255, 255), max_pixels=50_000_000)
_MOST_LOOKED_AT = 256
NEAR_BITS = 4
"""Of 128 in which near-duplicates may differ."""
_LARGEST_FAMILY = 0.05
"""Of the pictures: a larger family of small figures on an even ground is none of duplicates, and no split holds it."""
_ELONGATED = 2.0
"""Longer over shorter side beyond which the center square shows less than half of a picture."""
_GRAY_LEVELS = 12
"""Most that the channels of a gray pixel differ, after lossy compression."""
_SMALLEST_CLASS = 5
Labels = Literal["metadata", "folder", "none"]


@dataclass(frozen=True)
class Survey:
    """What is known of a collection. Shares are of the pictures that were looked at, evenly spaced over the list."""

    n: int
    """Pictures that are listed."""
    n_looked_at: int
    side: int
    """Median of the shorter sides, in pixels."""
    smallest: int
    largest: int
    """Shortest and longest side of all."""
    color: float
    elongated: float
    constant: float
    unreadable: float
    labels: Labels
    n_classes: int
    n_captioned: int
    read_s: float
    """Seconds to read and decode one picture."""
    near_bits: int = NEAR_BITS
    """Within which pictures are taken for near-duplicates."""
    encoder: Mapping[str, Any] | None = None
    """`encoder.model` of a file that the person brings; null: an encoder is trained on the pictures."""

    judge: Mapping[str, Any] | None = None
    """`evaluate.features.network` of such a file; null: the judge is trained on the pictures."""

    @property
    def channels(self) -> Literal[1, 3]:
        """Gray only where no picture has color."""
        return 3 if self.color > 0 else 1


class _Look(NamedTuple):
    size: tuple[int, int]
    is_color: bool
    is_constant: bool
    hash: bytes


def look(source: Source) -> Survey:
    """List all, read some. Raises: DataError for too few pictures, all alike, or hardly any that can be read."""
    pictures: list[Item] = []
    metadata: list[Item] = []
    for item in source.list():
        (metadata if item.is_metadata else pictures).append(item)
    _check_number(source, len(pictures))
    began = time.process_time()
    shown = [pictures[i] for i in evenly_spaced(len(pictures), _MOST_LOOKED_AT)]
    looks = [found for item in shown if (found := _look_at(source, item)) is not None]
    read_s = (time.process_time() - began) / len(shown)
    unreadable = 1 - len(looks) / len(shown)
    if unreadable > 0.5:
        got = f"{len(shown) - len(looks)} of {len(shown)} files that were tried"
        raise DataError("hardly any of the pictures can be read", got=got, fix="are they pictures, and whole?")
    near_bits = _near_bits(looks)
    _check_difference(looks, near_bits)
    labels, n_classes, n_captioned = _said(source, pictures, metadata)
    sides = sorted(min(one.size) for one in looks)
    return Survey(
        n=len(pictures),
        n_looked_at=len(shown),
        side=sides[len(sides) // 2],
        smallest=sides[0],
        largest=max(max(one.size) for one in looks),
        color=_share([one.is_color for one in looks]),
        elongated=_share([max(one.size) > _ELONGATED * min(one.size) for one in looks]),
        constant=_share([one.is_constant for one in looks]),
        unreadable=unreadable,
        labels=labels,
        n_classes=n_classes,
        n_captioned=n_captioned,
        read_s=read_s,
        near_bits=near_bits,
    )


def _check_number(source: Source, n: int) -> None:
    if n < MIN_IMAGES:
        raise DataError(
            f"{source.uri} holds too few pictures to learn from and to hold some out",
            got=f"{n} pictures; left out: {source.left_out}",
            expected=f"at least {MIN_IMAGES}; hundreds to see something, thousands to be pleased",
        )


def _look_at(source: Source, item: Item) -> _Look | None:
    """None for a file that is no whole picture."""
    if item.size > DECODE.max_bytes():
        return None
    try:
        image = decode(source.read(item.key, item.pin), DECODE)
    except DataError:
        return None
    return _Look(image.size, _has_color(image), is_constant(image), difference_hash(image))


def _has_color(image: Image.Image) -> bool:
    small = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR, reducing_gap=2.0)).astype(np.int16)
    spread = small.max(2) - small.min(2)
    return bool((spread > _GRAY_LEVELS).mean() > 0.01)


def _near_bits(looks: Sequence[_Look]) -> int:
    """Fewer than usual where small figures on an even ground, whose hashes have few bits, would count as one."""
    words = as_words([one.hash for one in looks if not one.is_constant])
    sparse = words[np.bitwise_count(words).sum(1) < HASH_BITS // 4]
    most = max(5, _LARGEST_FAMILY * len(words))
    return next((bits for bits in range(NEAR_BITS, 0, -1) if largest_family(sparse, bits) <= most), 0)


def _check_difference(looks: Sequence[_Look], near_bits: int) -> None:
    """Raises: DataError when every picture is nearly the first one, so that one split would get them all."""
    words = as_words([one.hash for one in looks])
    alike = sum(len(j) for _, j in near_pairs(words[:1], words, near_bits))
    if alike == len(looks):
        what = "one color each" if all(one.is_constant for one in looks) else "near-duplicates of each other"
        raise DataError(
            "the pictures are all alike: there is nothing to learn",
            got=f"{len(looks)} pictures, {what}",
            expected="pictures that differ, a few at least",
            fix="name the folder or bucket that holds the whole collection",
        )


def _said(source: Source, pictures: Sequence[Item], metadata: Sequence[Item]) -> tuple[Labels, int, int]:
    """Where labels come from, how many there are, and pictures with captions. Raises: DataError for wrong metadata."""
    notes = read_notes(source, [_whole(source, item) for item in metadata])
    listed = {item.key for item in pictures}
    known = [note for key, note in notes.items() if key in listed]
    n_captioned = sum(bool(note.captions) for note in known)
    given = _classes([note.label for note in known])
    if given:
        return "metadata", given, n_captioned
    folders = 0 if _in_numbered_archives(source, pictures) else _classes([folder_label(item.key) for item in pictures])
    return ("folder", folders, n_captioned) if folders else ("none", 0, n_captioned)


def _in_numbered_archives(source: Source, pictures: Sequence[Item]) -> bool:
    """Are the folders those of archives that one name and a number name? Then they are no classes."""
    if not isinstance(source, ArchiveSource):
        return False
    folders = {folder_label(item.key) or "" for item in pictures}
    return len({re.sub(r"[0-9]+", "#", folder) for folder in folders}) == 1


def _classes(labels: Sequence[str | None]) -> int:
    """How many; 0 where there are fewer than two with some pictures each: folders then are no classes."""
    counts = Counter(label for label in labels if label is not None)
    n = sum(count >= _SMALLEST_CLASS for count in counts.values())
    return len(counts) if n >= 2 and n >= len(counts) / 2 else 0


def _whole(source: Source, item: Item) -> MetadataFile:
    data = source.read(item.key, item.pin)
    return MetadataFile(item.key, len(data), hashlib.sha256(data).hexdigest())


def _share(truths: Sequence[bool]) -> float:
    return sum(truths) / len(truths)
