"""Whether pictures show what their captions say, in a space that conditioned nothing: features of the judging network,
and vectors of texts, between which a ridge regression is fitted on training pictures.

n: pictures, c: captions, d: features, w: width of text vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from components.base import Metrics
from components.metrics.probe import linear_probe
from components.nn.ridge import ridge

_FLAT = 1e-6
"""Variance of a principal axis of the features, over that of the first, below which it is left out."""
_RANKS = (1, 5)
_AT_ONCE = 4096


@dataclass(frozen=True)
class CaptionJudge:
    """Texts and pictures in one space: the whitened features, and what a text leads one to expect of them."""

    mean: Float[Tensor, " d"]
    axes: Float[Tensor, "d k"]
    text_mean: Float[Tensor, " w"]
    weight: Float[Tensor, "w k"]

    def of_images(self, x: np.ndarray) -> Float[Tensor, "n k"]:
        """Of norm 1. Shapes: (n, d)."""
        return _unit((torch.from_numpy(x).double() - self.mean) @ self.axes)

    def of_texts(self, t: Float[Tensor, "c w"]) -> Float[Tensor, "c k"]:
        """Of norm 1."""
        return _unit((t.double() - self.text_mean) @ self.weight)


def fit_judge(x: np.ndarray, t: Float[Tensor, "n w"]) -> CaptionJudge:
    """Features (n, d) of training pictures, and the vector of a caption of each; n >= 2."""
    features, texts = torch.from_numpy(x).double(), t.double()
    mean, text_mean = features.mean(0), texts.mean(0)
    centered, texts = features - mean, texts - text_mean
    variances, vectors = torch.linalg.eigh(centered.T @ centered / len(centered))
    kept = variances > _FLAT * variances[-1].clamp(min=1e-30)
    axes = vectors[:, kept] / variances[kept].sqrt()
    y = centered @ axes
    return CaptionJudge(mean, axes, text_mean, ridge(texts, y).weight)


@dataclass(frozen=True)
class Captioned:
    """Pictures, each with one of the candidate captions."""

    x: np.ndarray
    """Features (n, d)."""
    caption: Int[np.ndarray, " n"]
    """Number of its caption among the candidates."""


def caption_metrics(
    judge: CaptionJudge, candidates: Float[Tensor, "c w"], drawn: Captioned, real: Captioned
) -> Metrics:
    """How often the caption is found among the candidates from the picture, and the cosine to it; c >= 2.

    Of samples, of real pictures with these captions (`_real`, the ceiling) and of samples with a caption that is not
    theirs (`_floor`). Beside them the diversity of samples of one caption, and of real pictures of one: the cosine
    alone rewards the mean.
    """
    texts = judge.of_texts(candidates)
    found = _found(judge, texts, drawn)
    metrics = {f"caption_{name}": value for name, value in found.items()}
    metrics |= {f"caption_{name}_real": value for name, value in _found(judge, texts, real).items()}
    unrelated = Captioned(drawn.x, (drawn.caption + len(texts) // 2) % len(texts))
    metrics |= {f"caption_{name}_floor": value for name, value in _found(judge, texts, unrelated).items()}
    for name, some in (("caption_diversity", drawn), ("caption_diversity_real", real)):
        if (spread := _diversity(judge, some)) is not None:
            metrics[name] = spread
    return metrics | {"caption_candidates": float(len(texts))}


@dataclass(frozen=True)
class Labeled:
    """Pictures and what they are of."""

    x: np.ndarray
    """Features (n, d)."""
    y: Int[np.ndarray, " n"]
    """Class, -1 where none is known."""


def class_metrics(train: Labeled, drawn: Labeled, real: Labeled) -> Metrics:
    """How often a linear probe on features of real training pictures sees in a sample the class that its caption is of.

    The same of real pictures with these captions (`_real`, the ceiling), and of samples whose captions change places
    at random (`_floor`), on average. Nothing where fewer than two classes, or none of the captions', are known.
    """
    train, drawn, real = (_known(some) for some in (train, drawn, real))
    if len(np.unique(train.y)) < 2 or not len(drawn.y) or not len(real.y):
        return {}
    n_classes = int(max(some.y.max() for some in (train, drawn, real))) + 1
    probe = linear_probe(*_tensors(train), n_classes, weight_decay=1e-3, iterations=100)
    (x, y), (x_real, y_real) = _tensors(drawn), _tensors(real)
    guess = probe(x)
    shares = (torch.bincount(labels, minlength=n_classes).double() / len(y) for labels in (guess, y))
    return {
        "caption_class": float((guess == y).double().mean()),
        "caption_class_floor": float(torch.mul(*shares).sum()),
        "caption_class_real": float((probe(x_real) == y_real).double().mean()),
    }


def _known(some: Labeled) -> Labeled:
    return Labeled(some.x[some.y >= 0], some.y[some.y >= 0])


def _tensors(some: Labeled) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(some.x).double(), torch.from_numpy(some.y)


def _found(judge: CaptionJudge, texts: Float[Tensor, "c k"], some: Captioned) -> Metrics:
    ranks, cosines = [], []
    for start in range(0, len(some.x), _AT_ONCE):
        here = slice(start, start + _AT_ONCE)
        similarity = judge.of_images(some.x[here]) @ texts.T
        own = similarity.gather(1, torch.from_numpy(some.caption[here])[:, None])
        ranks.append((similarity > own).sum(1))
        cosines.append(own[:, 0])
    rank = torch.cat(ranks)
    recalls = {f"r{k}": float((rank < k).double().mean()) for k in _RANKS}
    return {**recalls, "cosine": float(torch.cat(cosines).mean())}


def _diversity(judge: CaptionJudge, some: Captioned) -> float | None:
    """One minus the mean cosine of two pictures of one caption, over captions with at least two; None without such."""
    spreads = []
    units = judge.of_images(some.x)
    for caption in np.unique(some.caption):
        rows = units[torch.from_numpy(some.caption == caption)]
        if (n := len(rows)) > 1:
            spreads.append(float(1 - (rows.sum(0).square().sum() - n) / (n * (n - 1))))
    return float(np.mean(spreads)) if spreads else None


def numbered(captions: Sequence[str], candidates: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Number of each caption among the candidates, -1 for none of them."""
    known = {caption: i for i, caption in enumerate(candidates)}
    return np.array([known.get(caption, -1) for caption in captions], np.int64)


def _unit(x: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    out: Tensor = torch.nn.functional.normalize(x, dim=1)
    return out
