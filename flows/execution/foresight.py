"""What will go wrong hours from now, told from params.yaml and collection.lock before anything runs."""

from collections.abc import Iterator
from itertools import islice

from components.collection.lock import Lock, read_lock
from components.collection.metadata import folder_label
from components.errors import ConfigError, RcgError
from flows.execution.project import Project
from flows.identity.fingerprint import LOCK
from flows.pipeline.params import Params

_MOST_KEYS = 100_000
"""Pictures whose folders are looked at."""


def concerns(project: Project) -> list[str]:
    """One line each. None where params.yaml or the lock cannot be read: whoever uses them says so."""
    try:
        params, lock = project.params, read_lock(project.root / LOCK)
        return [*_of_labels(params, lock), *_of_held_out_images(params, lock)]
    except RcgError:
        return []


def _of_labels(params: Params, lock: Lock) -> Iterator[str]:
    if params.collect.labels != "folder":
        return
    keys = islice((entry.key for chunk in lock.chunks for entry in lock.entries(chunk)), _MOST_KEYS)
    folders = {folder_label(key) for key in keys} - {None}
    if len(folders) < 2:
        found = f"all pictures lie in {', '.join(map(str, folders))}" if folders else "no picture lies in one"
        yield f"collect.labels is folder, but {found}: set collect.labels: none, or sort them into folders"


def _of_held_out_images(params: Params, lock: Lock) -> Iterator[str]:
    split = params.evaluate.split
    share = params.collect.split.test_share if split == "test" else params.collect.split.val_share
    n = round(lock.count * share)
    try:
        params.evaluate.features.check_size(n)
    except ConfigError as error:
        yield f"evaluate will be refused: about {n} of {lock.count} pictures are held out ({split}); {error.fix}"
