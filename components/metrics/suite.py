"""All numbers of one set of images against a reference, from what a network made of both."""

import numpy as np

from components.base import Metrics
from components.errors import ShapeError
from components.metrics.finite_sample import Target, at_infinity, resampled_interval
from components.metrics.frechet import frechet_distance
from components.metrics.kernels import cmmd, kid
from components.metrics.measured import Measured
from components.metrics.prdc import density_coverage, precision_recall
from components.metrics.protocol import NEIGHBOR_REFERENCES
from components.metrics.sliced import sliced_wasserstein


def compare(images: Measured, reference: Measured, *, kind: str, k: int, n_bootstrap: int, seed: int) -> Metrics:
    """Numbers by name; those that need the reference's pictures are left out where only its statistics are known.

    `fid` where the network is FID's, else `fd`. Raises: ShapeError for a reference of another network, ConfigError for
    fewer pictures than neighbors.
    """
    assert images.features is not None  # noqa: S101  (candidates are measured, never read from statistics)
    width, theirs = images.pooled.mean.shape, reference.pooled.mean.shape
    if width != theirs:
        raise ShapeError("the reference's statistics are of another network", got=theirs, expected=width)
    name = "fid" if kind == "inception" else "fd"
    target = Target.of(reference.pooled, reference.features)
    found: Metrics = {name: target.distance(images.features, images.pooled)}
    found[f"{name}_infinity"] = at_infinity(images.features, target, seed=seed)
    if n_bootstrap:
        low, high = resampled_interval(images.features, target, n_draws=n_bootstrap, seed=seed)
        found |= {f"{name}_low": low, f"{name}_high": high}
    if images.spatial is not None and reference.spatial is not None:
        found["sfid"] = frechet_distance(reference.spatial, images.spatial)
    if images.score is not None:
        found["inception_score"] = images.score
    if reference.features is not None:
        found |= _by_rows(images.features, reference.features, kind=kind, k=k, seed=seed)
    return found


def _by_rows(images: np.ndarray, reference: np.ndarray, *, kind: str, k: int, seed: int) -> Metrics:
    found: Metrics = {"kid": kid(images, reference, seed=seed)}
    found["mind"] = sliced_wasserstein(images, reference, seed=seed)
    if kind == "clip":
        found["cmmd"] = cmmd(images, reference)
    real = reference
    if len(reference) > NEIGHBOR_REFERENCES:
        order = np.random.default_rng(seed).permutation(len(reference))
        real = reference[np.sort(order[:NEIGHBOR_REFERENCES])]
    found["precision"], found["recall"] = precision_recall(real, images, k=k)
    found["density"], found["coverage"] = density_coverage(real, images, k=k)
    return found
