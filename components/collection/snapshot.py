"""`rcg snapshot`: bring collection.lock up to date with a source, without ever changing a chunk that exists."""

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from components.collection.known import Known, Verdict
from components.collection.lock import Entry, Lock, MetadataFile, chunk_name, read_lock, write_lock
from components.collection.source_base import Item, LeftOut, Source
from components.errors import DataError, TamperedError

CHUNK_SIZE = 512
MIN_IMAGES = 3
"""One for each split: with fewer there is nothing to hold out."""
_SHOWN = 5


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot found. `changed`: the lock has new bytes."""

    n_images: int
    n_new: int
    left_out: LeftOut
    n_chunks: int
    changed: bool


def take_snapshot(
    source: Source,
    lock_path: Path,
    *,
    rebuild: bool,
    follows_links: bool | None = None,
    before: Path | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> Snapshot:
    """Append the source's new pictures to the lock in new chunks; the same source gives the same bytes.

    `follows_links`: whether links lead out of a folder; None: as the lock remembers it. Holds one chunk, and some 50
    bytes for each picture that the lock lists already. In a rebuild, objects of a bucket that were replaced are pinned
    by their content: keys and sizes would not tell the new collection from the old one. `before`: a list to start from
    in place of the lock itself.
    Raises: DataError when pictures that are listed have changed or vanished (unless rebuilding), or there are too few.
    """
    old = _old_lock(before or lock_path, rebuild)
    source.follows_links = old is not None and old.follows_links if follows_links is None else follows_links
    comparison = _Comparison(source, old, rebuild, chunk_size)
    is_changed = write_lock(lock_path, comparison.metadata, comparison.chunks(), follows_links=source.follows_links)
    n_images = comparison.n_old + comparison.n_new
    return Snapshot(n_images, comparison.n_new, source.left_out, comparison.n_chunks, is_changed)


def _old_lock(path: Path, rebuild: bool) -> Lock | None:
    if not path.exists():
        return None
    try:
        return read_lock(path)
    except TamperedError:
        if rebuild:
            return None
        raise


class _Comparison:
    """One pass over a source beside what was listed before."""

    def __init__(self, source: Source, old: Lock | None, rebuild: bool, chunk_size: int) -> None:
        self.metadata: list[MetadataFile] = []
        self.n_old = 0 if rebuild or old is None else old.count
        self.n_new = self.n_chunks = 0
        self._source, self._rebuild, self._chunk_size = source, rebuild, chunk_size
        self._kept = None if rebuild else old
        self._known = Known(old)
        self._changed = _Some()

    def chunks(self) -> Iterator[tuple[str, Sequence[Entry]]]:
        """Those that exist, then the new ones. Raises: DataError after the last, when there must be no new lock."""
        for chunk in self._kept.chunks if self._kept else []:
            self.n_chunks += 1
            yield chunk.name, self._kept.entries(chunk) if self._kept else []
        new = self._new()
        while entries := list(islice(new, self._chunk_size)):
            self.n_chunks += 1
            self.n_new += len(entries)
            yield chunk_name(self.n_chunks - 1), entries
        self._check()

    def _new(self) -> Iterator[Entry]:
        for item in self._source.list():
            if item.is_metadata:
                self.metadata.append(_metadata(self._source, item))
                continue
            entry = Entry(item.key, item.size, item.pin or self._source.content_pin(item.key))
            verdict = self._known.compare(entry)
            if self._rebuild:
                yield self._tell_apart(entry, verdict)
            elif verdict == "new":
                yield entry
            elif verdict == "changed":
                self._changed.add(entry.key)

    def _tell_apart(self, entry: Entry, verdict: Verdict) -> Entry:
        if entry.locator and verdict in ("changed", "unsure"):
            return replace(entry, pin=self._source.content_pin(entry.key))
        return entry

    def _check(self) -> None:
        if self._kept is not None:
            vanished = _Some()
            for key in self._known.unseen(self._kept):
                vanished.add(key)
            _refuse_changes(self._source, self._changed, vanished)
        if self.n_old + self.n_new < MIN_IMAGES:
            n = self.n_old + self.n_new
            raise DataError(
                f"{self._source.uri} holds {n or 'no'} picture{'s' if n != 1 else ''}",
                got=f"{n} pictures; left out: {self._source.left_out}",
                expected=f"at least {MIN_IMAGES}, to train on some and hold out others",
            )


class _Some:
    """How many keys, and the first few of them."""

    def __init__(self) -> None:
        self.n = 0
        self._first: list[str] = []

    def add(self, key: str) -> None:
        self.n += 1
        self._first = heapq.nsmallest(_SHOWN, [*self._first, key])

    def __str__(self) -> str:
        return ", ".join(self._first) + (", …" if self.n > _SHOWN else "")


def verify_source(source: Source, lock: Lock) -> int:
    """How many pictures of the source the lock does not list yet.

    Only names and sizes are compared; contents are when they are read. Holds 8 bytes per picture.
    Raises: DataError naming the first listed picture that is missing or has another size.
    """
    source.follows_links = lock.follows_links
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


def _metadata(source: Source, item: Item) -> MetadataFile:
    data = source.read(item.key)
    return MetadataFile(item.key, len(data), hashlib.sha256(data).hexdigest())


def _refuse_changes(source: Source, changed: _Some, vanished: _Some) -> None:
    if not changed.n and not vanished.n:
        return
    verb = "changed" if changed.n else "gone"
    facts = [f"{keys.n} {what}: {keys}" for what, keys in (("changed", changed), ("gone", vanished)) if keys.n]
    raise DataError(
        f"pictures that collection.lock lists are {verb} in {source.uri}",
        got="; ".join(facts),
        fix="put them back, or start the list over with `rcg snapshot --rebuild` (everything trained on it runs again)",
    )
