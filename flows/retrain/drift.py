"""How far new images lie from old ones, in the eyes of the champion's encoder. Loads torch only when asked."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.collection.lock import Entry, Lock
from components.spacing import evenly_spaced
from flows.execution.project import Project
from flows.registry import Version
from flows.runs.stored import StoredArtifact

if TYPE_CHECKING:
    from components.encoders.base import Encoder
    from components.images.config import DecodeRecipe

_MOST = 512
_BATCH = 64

Open = Callable[[Version, str, Path], StoredArtifact]


def drift_of(project: Project, lock: Lock, base: Sequence[str], champion: Version, open_artifact: Open) -> float:
    """Frechet distance of new to old representations over that between two disjoint halves of old ones.

    About 1 when nothing changed. Infinite when too few of either can be read: then it is not known to be small.
    """
    from components.encoders.base import load_encoder
    from components.images.config import DecodeRecipe
    from components.metrics.drift import frechet_ratio

    chunks = [(chunk.name in base, lock.entries(chunk)) for chunk in lock.chunks]
    old, new = ([e for is_old, entries in chunks if is_old == wanted for e in entries] for wanted in (True, False))
    n = min(_MOST, len(new), len(old) // 2)
    with tempfile.TemporaryDirectory(prefix="rcg-drift-", ignore_cleanup_errors=True) as scratch:
        encoder = load_encoder(open_artifact(champion, "encoder", Path(scratch, "encoder")))
        listing = open_artifact(champion, "collect", Path(scratch, "collect")).read_json("collection.json")
        recipe = DecodeRecipe.model_validate(listing["decode"])
        chosen = np.random.default_rng(0).permutation(len(old))[: 2 * n]
        seen_new = _represent(project, [new[i] for i in evenly_spaced(len(new), n)], encoder, recipe)
        seen_old = _represent(project, [old[i] for i in chosen], encoder, recipe)
    return frechet_ratio(seen_new, seen_old)


def _represent(project: Project, entries: Sequence[Entry], encoder: "Encoder", recipe: "DecodeRecipe") -> np.ndarray:
    """Representations of those pictures that can be decoded."""
    import torch

    from components.collection.source import open_source
    from components.encoders.base import constant_rows
    from components.errors import DataError
    from components.images.decode import decode, square
    from components.images.pictures import to_float

    source, images = open_source(project.settings.source, follows_links=True), []
    for entry in entries:
        try:
            images.append(square(decode(source.read(entry.key), recipe), encoder.input_px))
        except DataError:
            continue
    if not images:
        return np.zeros((0, encoder.dim))
    with torch.inference_mode():
        blocks = [to_float(np.stack(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)]
        z = torch.cat([encoder(block) for block in blocks])
    usable = np.setdiff1d(np.arange(len(z)), constant_rows(z).numpy())
    found: np.ndarray = z.numpy()[usable]
    return found
