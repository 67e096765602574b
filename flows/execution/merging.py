"""A git merge that stopped at collection.lock: the index holds what both branches list, whatever the file holds."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from components.collection.lock import Lock, read_lock
from components.collection.merging import merge_locks
from flows.children import git
from flows.identity.fingerprint import LOCK


@contextlib.contextmanager
def joined_lock(root: Path, follows_links: bool | None) -> Iterator[Path | None]:
    """What both branches list, in a file that is removed afterwards; None where no merge of the lock is unfinished.

    Raises: DataError, or TamperedError, for lists that cannot be joined.
    """
    with tempfile.TemporaryDirectory() as scratch:
        base, ours, theirs = (_side(root, stage, Path(scratch)) for stage in (1, 2, 3))
        if ours is None or theirs is None:
            yield None
            return
        path = Path(scratch) / LOCK
        merge_locks(base, ours, theirs, path, follows_links=follows_links)
        yield path


def _side(root: Path, stage: int, folder: Path) -> Lock | None:
    """An unmerged entry of git's index: 1 is what both branches grew from, 2 is ours, 3 is theirs."""
    if shutil.which("git") is None:
        return None
    shown = git(root, "show", f":{stage}:./{LOCK}")
    if shown.returncode != 0:
        return None
    path = folder / f"{stage}"
    path.write_bytes(shown.stdout)
    return read_lock(path)
