"""Two lists of pictures that grew from one, on two branches, as one list: each chunk that both have once, then the new.

The chunks of `ours` stay as they are. Those that only `theirs` has follow under new names, without what `ours` lists.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from components.collection.known import Known
from components.collection.lock import Chunk, Entry, Lock, chunk_name, write_lock
from components.errors import DataError

_SHOWN = 5


def merge_locks(base: Lock | None, ours: Lock, theirs: Lock, path: Path, *, follows_links: bool | None = None) -> None:
    """Write the joined list to `path`. Metadata is that of `ours`; the next snapshot lists what the source has.

    `base`: what both grew from, if there was a list; `follows_links`: as take_snapshot's. Raises: DataError, nothing
    written, when one side started its list over, or for pictures that both list and that are not the same.
    """
    common = _common(ours, theirs)
    if base is not None and len(base.chunks) > min(common, _common(base, ours)):
        raise DataError(
            "one of the two branches started its list over, so they have no list in common",
            fix="take one of them, `git checkout --ours collection.lock` or --theirs, `git add` it; `rcg snapshot`",
        )
    if follows_links is None and ours.follows_links != theirs.follows_links:
        raise DataError(
            "one of the two branches follows links and the other does not",
            fix="say which: `rcg snapshot --follow-links`, or --no-follow-links",
        )
    write_lock(path, ours.metadata, _chunks(ours, theirs, common), follows_links=ours.follows_links)


def _common(a: Lock, b: Lock) -> int:
    """How many chunks both begin with."""

    def is_same(pair: tuple[Chunk, Chunk]) -> bool:
        return (pair[0].name, pair[0].digest) == (pair[1].name, pair[1].digest)

    return sum(1 for _ in takewhile(is_same, zip(a.chunks, b.chunks, strict=False)))


def _chunks(ours: Lock, theirs: Lock, common: int) -> Iterator[tuple[str, Sequence[Entry]]]:
    known, n, unlike = Known(ours), len(ours.chunks), list[str]()
    for chunk in ours.chunks:
        yield chunk.name, ours.entries(chunk)
    for chunk in theirs.chunks[common:]:
        verdicts = [(known.compare(entry), entry) for entry in theirs.entries(chunk)]
        unlike += [entry.key for verdict, entry in verdicts if verdict == "changed"]
        new = [entry for verdict, entry in verdicts if verdict == "new"]
        if new:
            yield chunk_name(n), new
            n += 1
    if unlike:
        raise DataError(
            "the two branches list different pictures under one name",
            got=f"{len(unlike)}: {', '.join(unlike[:_SHOWN])}{', …' if len(unlike) > _SHOWN else ''}",
            fix="settle which are in the source, then `rcg snapshot --rebuild` (everything trained on it runs again)",
        )
