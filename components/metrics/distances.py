"""Euclidean distances between sets of vectors in float64, chunk by chunk so that memory stays flat."""

from collections.abc import Iterable, Iterator

import numpy as np

from components.errors import ShapeError

CHUNK = 2048


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shapes: (n, d), (m, d) -> (n, m) float64, never negative."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ShapeError("two sets of vectors must have one width", got=(a.shape, b.shape), expected="(n, d), (m, d)")
    a, b = a.astype(np.float64), b.astype(np.float64)
    # |a - b|^2 = |a|^2 + |b|^2 - 2ab loses digits for near twins far from the origin, so the origin moves to b's mean
    origin = b.mean(axis=0)
    a, b = a - origin, b - origin
    d2: np.ndarray = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None]
    d2 -= 2 * a @ b.T
    return d2.clip(0, out=d2)


def chunks(x: np.ndarray) -> Iterator[np.ndarray]:
    """x row block by row block."""
    return (x[start : start + CHUNK] for start in range(0, len(x), CHUNK))


def nearest(queries: np.ndarray, references: Iterable[np.ndarray], *, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices of each query's k nearest references, nearest first; the references come in blocks.

    Equal distances go to the lower index. Shapes: (n, d), blocks (m_i, d) -> (n, k) float64, (n, k) int64.
    """
    parts = [(q, np.full((len(q), 0), np.inf), np.zeros((len(q), 0), np.int64)) for q in chunks(queries)]
    seen = 0
    for block in references:
        parts = [(q, *_nearer(q, block, best, index, k, seen)) for q, best, index in parts]
        seen += len(block)
    if seen < k:
        raise ShapeError("fewer references than neighbors asked for", got=seen, expected=f"at least {k}")
    return np.sqrt(np.concatenate([best for _, best, _ in parts])), np.concatenate([index for *_, index in parts])


def _nearer(
    q: np.ndarray, block: np.ndarray, best: np.ndarray, index: np.ndarray, k: int, seen: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of those known and of a further block, whose first row has the index `seen`."""
    d2, rows = np.concatenate([best, squared_distances(q, block)], axis=1), np.arange(len(q))
    known, columns = best.shape[1], []
    for _ in range(min(k, d2.shape[1])):  # k is small: so many minima cost far less than sorting
        column = d2.argmin(axis=1)
        columns.append((column, d2[rows, column]))
        d2[rows, column] = np.inf
    chosen, nearest_d2 = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    here = chosen - known + seen
    if known:
        np.copyto(here, np.take_along_axis(index, np.minimum(chosen, known - 1), axis=1), where=chosen < known)
    return nearest_d2, here
