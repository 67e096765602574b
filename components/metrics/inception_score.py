"""The inception score of class probabilities, whatever network gave them."""

import numpy as np

from components.errors import ShapeError


def inception_score(probabilities: np.ndarray, *, chunk: int | None = None) -> float:
    """exp of the mean over images of KL(p(y|x) || p(y)): 1 for a blur of all classes, n_classes at best.

    With `chunk` it is the mean over consecutive parts of that many images, of which each has its own p(y); published
    numbers have parts of 5,000. Without, the whole set is one part.
    Shapes: (n, n_classes), rows sum to 1. Paper: 1606.03498, section 4.
    """
    if chunk is not None:
        parts = [probabilities[start : start + chunk] for start in range(0, len(probabilities), chunk)]
        return float(np.mean([inception_score(part) for part in parts]))
    p = probabilities.astype(np.float64)
    if p.ndim != 2 or not len(p) or not np.allclose(p.sum(axis=1), 1, atol=1e-4):
        raise ShapeError("not a table of class probabilities", got=p.shape, expected="(n, n_classes), rows sum to 1")
    marginal = p.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(marginal)), 0.0)
    return float(np.exp(terms.sum(axis=1).mean()))
