"""Sampled pictures beside the training pictures that are nearest to them, by representation."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.errors import ConfigError, MissingError, RcgError
from flows.execution.project import Project
from flows.lineage.origin import read_lineage
from flows.runs.records import find_run
from flows.runs.stored import StoredArtifact

if TYPE_CHECKING:
    from components.bundle.bundle import Bundle

_BATCH = 64


def nearest_sheet(bundle: "Bundle", drawn: np.ndarray, k: int, project: Project) -> np.ndarray:
    """Each column: a sampled picture, and below it its k nearest training pictures, as the codec shows them.

    Shapes: (n, h, w, 3) uint8 -> (h, w, 3) uint8. Raises: ConfigError for a bundle without encoder or a k below 1,
    MissingError when the store has not the pictures that the bundle was trained on.
    """
    import torch

    from components.cache.reader import open_cache
    from components.images.pictures import rows_grid, to_float, to_uint8
    from components.metrics.probe import neighbors

    if k < 1:
        raise ConfigError("--nearest needs at least one picture", got=k, fix="--nearest 3")
    encoder = bundle.encoder
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, torch.inference_mode():
        split = open_cache(_cache(bundle.folder, project, Path(folder))).training(("target", "representation"))
        if len(split) < k:
            raise ConfigError(
                "there are fewer training pictures", got=f"--nearest {k}", expected=f"at most {len(split)}"
            )
        bank = split.rows(np.arange(len(split)))["representation"]
        parts = [to_float(drawn[start : start + _BATCH]) for start in range(0, len(drawn), _BATCH)]
        z = torch.cat([encoder(part.to(bundle.device)).cpu() for part in parts])
        index = neighbors(z.nan_to_num(), bank, k).numpy()
        found = [split.rows(column)["target"] for column in index.T]
        shown = [to_uint8(bundle.system.codec.decode(target.to(bundle.device))) for target in found]
    return rows_grid([drawn, *shown])


def _cache(bundle: Path, project: Project, scratch: Path) -> StoredArtifact:
    """The encode artifact that the bundle was made of. Raises: MissingError."""
    try:
        digest = read_lineage(bundle)["parents"]["encode"]["content"]
        run = find_run(project.store, "encode", digest)
    except (RcgError, OSError, KeyError) as error:
        raise _absent(project) from error
    if run is None:
        raise _absent(project)
    return StoredArtifact(project.store, run, scratch)


def _absent(project: Project) -> MissingError:
    return MissingError(
        "the training pictures of this bundle are not at hand",
        got=f"store {project.settings.store}",
        fix="run this in the project that trained it, set RCG_STORE, or leave --nearest out",
    )
