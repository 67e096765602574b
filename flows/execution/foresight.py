"""What will go wrong hours from now, told from params.yaml and collection.lock before anything runs.

What reads metadata is imported inside functions: it loads NumPy and pyarrow, which most folders do without.
"""

from collections.abc import Iterator
from itertools import islice

from components.collection.lock import Lock, read_lock
from components.diffusion.bases.config import GaussiansConfig
from components.errors import ConfigError, RcgError
from flows.execution.project import Project
from flows.identity.fingerprint import LOCK
from flows.pipeline.params import Params

_MOST_KEYS = 100_000
"""Pictures whose folders are looked at."""
_MOST_METADATA = 50_000_000
"""Bytes of metadata that are read for their labels and captions."""
_LABEL = "set collect.labels: none, or add metadata.csv with the columns file_name and label"
_HOW_TO = "docs/how-to/text.md shows the section"


def concerns(project: Project, *, remote: bool = False) -> list[str]:
    """One line each. None where params.yaml or the lock cannot be read: whoever uses them says so.

    `remote`: labels and captions of metadata are also looked for in a bucket, which may be slow to answer.
    """
    try:
        params, lock = project.params, read_lock(project.root / LOCK)
        found = [*_of_labels(params, lock), *_of_held_out_images(params, lock), *_of_gaussians(params, lock)]
    except RcgError:
        return []
    source = project.settings.source
    return [*found, *(_of_metadata(params, lock, source) if remote or "://" not in source else ())]


def _of_labels(params: Params, lock: Lock) -> Iterator[str]:
    if params.collect.labels == "metadata" and not lock.metadata:
        yield f"collect.labels is metadata, but there is none: {_LABEL}"
    if params.collect.labels != "folder":
        return
    from components.collection.metadata import folder_label

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
    k, drawn = params.evaluate.k_neighbors, params.sample.n
    if min(n, drawn) <= k:
        found = f"{drawn} are sampled: raise sample.n" if drawn <= n else f"about {n} are held out ({split})"
        fix = "lower evaluate.k_neighbors"
        yield f"evaluate will be refused: precision and recall need more than {k} pictures, and {found}, or {fix}"


def _of_gaussians(params: Params, lock: Lock) -> Iterator[str]:
    """Each Gaussian of a base needs a training row."""
    base = getattr(params.rdm.model, "base", None) if params.rdm is not None else None
    split = params.collect.split
    n = round(lock.count * (1 - split.val_share - split.test_share))
    if isinstance(base, GaussiansConfig) and base.k > n:
        yield f"rdm will be refused: {base.k} Gaussians (rdm.model.base.k) of about {n} training pictures"


def _of_metadata(params: Params, lock: Lock, source: str) -> Iterator[str]:
    """Labels that are not there, captions that nothing reads, and readers of captions that have none."""
    if sum(file.size for file in lock.metadata) > _MOST_METADATA:
        return
    try:
        is_labeled, n = _said(lock, source) if lock.metadata else (True, 0)
    except RcgError:  # `collect` says what is wrong with the source
        return
    if params.collect.labels == "metadata" and not is_labeled:
        yield f"collect.labels is metadata, but it labels no picture: {_LABEL}"
    if n and params.text is None:
        yield f"{n} picture(s) have a caption that nothing reads: params.yaml has no section text; {_HOW_TO}"
    elif params.text is not None and not n and (params.rdm is None or params.rdm.train is not None):
        yield "params.yaml has a section text, but no picture has a caption: add them to metadata.csv, column text"


def _said(lock: Lock, source: str) -> tuple[bool, int]:
    """Whether metadata gives any picture a label, and how many a caption."""
    from components.collection.metadata import read_notes
    from components.collection.source import open_source

    notes = read_notes(open_source(source, follows_links=lock.follows_links), lock.metadata)
    said = [(note.label is not None, bool(note.captions)) for note in notes.values()]
    return any(labeled for labeled, _ in said), sum(captioned for _, captioned in said)
