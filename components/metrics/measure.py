"""The numbers of an evaluation, from features alone: flat names, deterministic, each beside what real images score."""

from dataclasses import dataclass

import numpy as np

from components.base import Metrics
from components.metrics.advice import FEW_LABELS
from components.metrics.evidence import LEVEL, binomial_tail
from components.metrics.finite_sample import Target, resampled_interval
from components.metrics.frechet import frechet_distance
from components.metrics.gaussian import Gaussian
from components.metrics.histogram import class_counts, entropy, kl_divergence
from components.metrics.inception_score import inception_score
from components.metrics.kernels import kid
from components.metrics.memorization import SMALLEST, Memorization
from components.metrics.prdc import precision_recall
from components.metrics.sliced import sliced_wasserstein


@dataclass(frozen=True)
class Vectors:
    """One vector per image of three sets, each (n_i, d)."""

    train: np.ndarray
    held_out: np.ndarray
    generated: np.ndarray


def quality(x: Vectors, *, k: int, n_bootstrap: int, seed: int) -> Metrics:
    """Frechet, kernel and sliced distance to the held-out images, precision, recall; `floor` and `real` are those of
    training images.

    At most as many training images are used as were generated: most numbers depend on the size of the set.
    """
    real = x.train[np.random.default_rng(seed).permutation(len(x.train))[: len(x.generated)]]
    target = Target.of(Gaussian.fit(x.held_out), x.held_out)
    fd, floor = target.distance(x.generated), target.distance(real)
    low, high = resampled_interval(x.generated, target, n_draws=n_bootstrap, seed=seed)
    precision, recall = precision_recall(x.held_out, x.generated, k=k)
    real_precision, real_recall = precision_recall(x.held_out, real, k=k)
    both = {"": x.generated, "_floor": real}
    kernel = {f"kid{end}": kid(features, x.held_out, seed=seed) for end, features in both.items()}
    sliced = {f"mind{end}": sliced_wasserstein(features, x.held_out, seed=seed) for end, features in both.items()}
    return {
        "fd": fd,
        "fd_low": low,
        "fd_high": high,
        "fd_floor": floor,
        "fd_ratio": fd / max(floor, SMALLEST),
        "precision": precision,
        "precision_real": real_precision,
        "recall": recall,
        "recall_real": real_recall,
        **kernel,
        **sliced,
    }


def at_chance(held_out: np.ndarray, labels: np.ndarray) -> str | None:
    """Why a label network has not learned: by an exact test it names no more right than always naming the commonest.

    None where it has, and of fewer than 100 labels, which say nothing.
    Shapes: held_out (m, n_classes) probabilities; labels (m,) int64, -1 for unlabeled.
    """
    known = labels >= 0
    counts = class_counts(labels, held_out.shape[1])
    n = int(counts.sum())
    if n < FEW_LABELS:
        return None
    chance, hits = float(counts.max() / n), int((held_out.argmax(axis=1) == labels)[known].sum())
    p = binomial_tail(hits, n, chance)
    if p <= LEVEL:
        return None
    return f"it names {hits / n:.0%} of {n} labels right, and always naming the commonest {chance:.0%} (p = {p:.2g})"


def class_metrics(generated: np.ndarray, held_out: np.ndarray, labels: np.ndarray) -> Metrics:
    """Inception score and class balance from the label network's probabilities; `real` is that of held-out images.

    Shapes: generated (n, n_classes), held_out (m, n_classes); labels (m,) int64, -1 for unlabeled.
    """
    n_classes = generated.shape[1]
    drawn = class_counts(generated.argmax(axis=1), n_classes)
    real = class_counts(labels, n_classes)
    known = labels >= 0
    return {
        "inception_score": inception_score(generated),
        "inception_score_real": inception_score(held_out),
        "class_entropy": entropy(drawn),
        "class_entropy_real": entropy(real),
        "class_kl": kl_divergence(real, drawn),
        "network_accuracy": float((held_out.argmax(axis=1) == labels)[known].mean()) if known.any() else 0.0,
    }


def memorization_metrics(features: Memorization, pixels: Memorization) -> Metrics:
    """Share of generated images closer to a training image than all but a few new real images, and median ratios."""
    return {
        "memorization_share": features.share,
        "memorization_share_pixels": pixels.share,
        "memorization_expected": features.percentile / 100,
        "memorization_ratio": features.ratio,
        "memorization_ratio_pixels": pixels.ratio,
    }


def representation_metrics(z: Vectors) -> Metrics:
    """Frechet distance of the drawn representations alone, with its floor.

    Measured in the leading principal axes of the training representations, a fifth as many as held-out images: a
    covariance of more dimensions than that would be noise.
    """
    train, held_out, generated = (Gaussian.fit(part) for part in (z.train, z.held_out, z.generated))
    axes = train.axes(max(1, min(z.train.shape[1], len(z.held_out) // 5)))
    seen = {name: one.seen_in(axes, train.mean) for name, one in (("", generated), ("_floor", train))}
    target = held_out.seen_in(axes, train.mean)
    return {
        **{f"representation_fd{end}": frechet_distance(one, target) for end, one in seen.items()},
        "representation_axes": float(axes.shape[1]),
        "representation_variance": _share(train, axes),
    }


def _share(of: Gaussian, axes: np.ndarray) -> float:
    """Of its variance, what the axes hold."""
    total = float(np.trace(of.cov))
    return float(np.trace(axes.T @ of.cov @ axes)) / total if total > 0 else 0.0


def plane(z: Vectors, n: int, *, seed: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]], float]:
    """At most n generated and n held-out vectors, taken at random, in the training set's two principal axes, as (x, y).

    Also the share of the training set's variance that the plane holds.
    """
    train = Gaussian.fit(z.train)
    axes, choose = train.axes(2), np.random.default_rng(seed)
    chosen = (part[choose.permutation(len(part))[:n]] for part in (z.generated, z.held_out))
    generated, held_out = (
        [(float(x), float(y)) for x, y in (points.astype(np.float64) - train.mean) @ axes] for points in chosen
    )
    return generated, held_out, _share(train, axes)


def mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine of matching rows. Shapes: (n, d), (n, d)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms.clip(1e-12)).mean())


def condition_metrics(asked: np.ndarray, seen: np.ndarray) -> Metrics:
    """Does an image show the representation that it was drawn from? Cosine to the encoder's view of it.

    `shuffled` compares with the next image's representation: what images that ignore the condition would score.
    """
    return {
        "condition_cosine": mean_cosine(asked, seen),
        "condition_cosine_shuffled": mean_cosine(np.roll(asked, 1, axis=0), seen),
    }
