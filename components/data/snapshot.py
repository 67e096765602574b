"""`rcg snapshot`: bring collection.lock up to date with a source, without ever changing a chunk that exists."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.data.lock import Entry, Lock, MetadataFile, read_lock, write_lock
from components.data.source import Item, Source
from components.errors import DataError

CHUNK_SIZE = 512
MIN_IMAGES = 3
"""One for each split: with fewer there is nothing to hold out."""
_SHOWN = 5


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot found. `changed`: the lock has new bytes."""

    n_images: int
    n_new: int
    n_ignored: int
    n_chunks: int
    changed: bool


def take_snapshot(source: Source, lock_path: Path, *, rebuild: bool, chunk_size: int = CHUNK_SIZE) -> Snapshot:
    """Append the source's new pictures to the lock in new chunks; the same source gives the same bytes.

    Raises: DataError when pictures that are listed have changed or vanished (unless rebuilding), or there are too few.
    """
    old = [] if rebuild or not lock_path.exists() else _chunks(read_lock(lock_path))
    known = {entry.key: entry for _, entries in old for entry in entries}
    metadata: list[MetadataFile] = []
    new: list[Entry] = []
    changed: list[str] = []
    for item in source.list():
        if item.is_metadata:
            metadata.append(_metadata(source, item))
            continue
        entry = Entry(item.key, item.size, item.pin or source.content_pin(item.key))
        before = known.pop(item.key, None)
        if before is None:
            new.append(entry)
        elif before.identity != entry.identity:
            changed.append(item.key)
    _refuse_changes(source, changed, sorted(known))
    n_images = sum(len(entries) for _, entries in old) + len(new)
    if n_images < MIN_IMAGES:
        raise DataError(
            f"{source.uri} holds {n_images or 'no'} picture{'s' if n_images != 1 else ''}",
            got=f"{n_images} pictures, {source.n_ignored} other files",
            expected=f"at least {MIN_IMAGES}, to train on some and hold out others",
        )
    fresh = [new[i : i + chunk_size] for i in range(0, len(new), chunk_size)]
    chunks = old + [(f"c{i:05d}", entries) for i, entries in enumerate(fresh, len(old))]
    is_changed = write_lock(lock_path, metadata, chunks)
    return Snapshot(n_images, len(new), source.n_ignored, len(chunks), is_changed)


def verify_source(source: Source, lock: Lock) -> int:
    """How many pictures of the source the lock does not list yet.

    Only names and sizes are compared; contents are when they are read. Holds 8 bytes per picture.
    Raises: DataError naming the first listed picture that is missing or has another size.
    """
    marks = (_mark(item.key, item.size) for item in source.list() if not item.is_metadata)
    listed = np.sort(np.fromiter(marks, np.uint64))
    for chunk in lock.chunks:
        entries = lock.entries(chunk)
        wanted = np.array([_mark(entry.key, entry.size) for entry in entries], np.uint64)
        lost = np.flatnonzero(~np.isin(wanted, listed))
        if len(lost):
            _refuse_lost(source, entries[lost[0]])
    return len(listed) - lock.count


def _mark(key: str, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{size} {key}".encode(), digest_size=8).digest())


def _refuse_lost(source: Source, entry: Entry) -> None:
    sizes = [item.size for item in source.list() if item.key == entry.key]
    raise DataError(
        f"{entry.key}, which collection.lock lists, is {'not the same' if sizes else 'missing'} in {source.uri}",
        got=f"{sizes[0]} bytes" if sizes else None,
        expected=f"{entry.size} bytes, {entry.pin}",
        fix="put it back, check RCG_SOURCE, or start the list over with `rcg snapshot --rebuild`",
    )


def _chunks(lock: Lock) -> list[tuple[str, Sequence[Entry]]]:
    return [(chunk.name, lock.entries(chunk)) for chunk in lock.chunks]


def _metadata(source: Source, item: Item) -> MetadataFile:
    data = source.read(item.key)
    return MetadataFile(item.key, len(data), hashlib.sha256(data).hexdigest())


def _refuse_changes(source: Source, changed: Sequence[str], vanished: Sequence[str]) -> None:
    if not changed and not vanished:
        return
    verb = "changed" if changed else "gone"
    facts = [f"{len(keys)} {what}: {_names(keys)}" for what, keys in (("changed", changed), ("gone", vanished)) if keys]
    raise DataError(
        f"pictures that collection.lock lists are {verb} in {source.uri}",
        got="; ".join(facts),
        fix="put them back, or start the list over with `rcg snapshot --rebuild` (everything trained on it runs again)",
    )


def _names(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")
