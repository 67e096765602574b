"""The inception score, with this project's own classifier in place of Inception."""

import numpy as np

from components.errors import ShapeError


def inception_score(probabilities: np.ndarray) -> float:
    """exp of the mean over images of KL(p(y|x) || p(y)): 1 for a blur of all classes, n_classes at best.

    Shapes: (n, n_classes), rows sum to 1. Paper: 1606.03498, section 4. Differs: the whole set is one split.
    """
    p = probabilities.astype(np.float64)
    if p.ndim != 2 or not len(p) or not np.allclose(p.sum(axis=1), 1, atol=1e-4):
        raise ShapeError("not a table of class probabilities", got=p.shape, expected="(n, n_classes), rows sum to 1")
    marginal = p.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(marginal)), 0.0)
    return float(np.exp(terms.sum(axis=1).mean()))
