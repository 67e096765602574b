"""Precision and recall, and nearest neighbors, against loops over all pairs."""

import tracemalloc

import numpy as np
import pytest

from components.errors import ConfigError, ShapeError
from components.metrics import distances
from components.metrics.distances import nearest, squared_distances
from components.metrics.prdc import density_coverage, precision_recall


def _brute_share_inside(queries: np.ndarray, reference: np.ndarray, k: int) -> float:
    inside = 0
    for q in queries:
        for i, r in enumerate(reference):
            others = sorted(float(np.linalg.norm(r - o)) for j, o in enumerate(reference) if j != i)
            if np.linalg.norm(q - r) <= others[k - 1]:
                inside += 1
                break
    return inside / len(queries)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("chunk", [7, 4096])
def test_matches_loops(k: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "CHUNK", chunk)
    rng = np.random.default_rng(k)
    real, generated = rng.normal(size=(30, 3)), rng.normal(size=(25, 3)) * 1.5
    precision, recall = precision_recall(real, generated, k=k)
    assert precision == pytest.approx(_brute_share_inside(generated, real, k))
    assert recall == pytest.approx(_brute_share_inside(real, generated, k))
    assert 0 < precision < 1


def test_the_two_extremes() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(60, 2))
    assert precision_recall(real, real, k=3) == (1.0, 1.0)
    assert precision_recall(real, real + 100, k=3) == (0.0, 0.0)
    collapsed = np.repeat(real[:1], 20, axis=0) + rng.normal(size=(20, 2)) * 1e-3
    precision, recall = precision_recall(real, collapsed, k=3)
    assert precision == 1.0
    assert recall < 0.1


def test_too_few_images_say_so() -> None:
    with pytest.raises(ConfigError, match="k_neighbors"):
        precision_recall(np.zeros((3, 2)), np.zeros((9, 2)), k=3)


def test_nearest_over_blocks_matches_a_full_table() -> None:
    rng = np.random.default_rng(5)
    queries, references = rng.normal(size=(11, 4)), rng.normal(size=(23, 4))
    table = np.linalg.norm(queries[:, None] - references[None], axis=2)
    expected = np.argsort(table, axis=1, kind="stable")[:, :3]
    distance, index = nearest(queries, [references[:10], references[10:12], references[12:]], k=3)
    assert (index == expected).all()
    assert distance == pytest.approx(np.take_along_axis(table, expected, axis=1))


def test_ties_go_to_the_lower_index() -> None:
    same = np.ones((1, 2))
    _, index = nearest(same, [np.repeat(same, 3, axis=0), np.repeat(same, 2, axis=0)], k=5)
    assert index.tolist() == [[0, 1, 2, 3, 4]]


def test_a_copy_far_from_the_origin_has_distance_zero() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(5, 8)).astype(np.float32) * 1e-3 + 1e4
    distance, index = nearest(x, [x])
    assert index[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert distance.max() < 1e-6


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ShapeError, match="one width"):
        squared_distances(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ShapeError, match="fewer references"):
        nearest(np.zeros((2, 3)), [np.zeros((1, 3))], k=2)


@pytest.mark.parametrize("chunk", [7, 4096])
def test_density_and_coverage_match_loops(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "CHUNK", chunk)
    rng = np.random.default_rng(4)
    real, generated, k = rng.normal(size=(30, 3)), rng.normal(size=(25, 3)) * 0.6, 3
    radii = [sorted(float(np.linalg.norm(r - o)) for o in real)[k] for r in real]  # the nearest is the point itself
    inside = [[np.linalg.norm(r - g) <= radius for r, radius in zip(real, radii, strict=True)] for g in generated]
    density, coverage = density_coverage(real, generated, k=k)
    assert density == pytest.approx(np.sum(inside) / (k * len(generated)))
    assert coverage == pytest.approx(np.any(inside, axis=0).mean())


def test_half_of_the_modes_dropped_halves_recall_and_coverage_alone() -> None:
    rng = np.random.default_rng(5)
    both = rng.normal(size=(400, 2)) * 0.1 + np.repeat([[0, 0], [10, 10]], 200, axis=0)
    one = rng.normal(size=(400, 2)) * 0.1
    precision, recall = precision_recall(both, one, k=3)
    density, coverage = density_coverage(both, one, k=3)
    assert precision > 0.9
    assert recall == pytest.approx(0.5, abs=0.05)
    assert density == pytest.approx(1, abs=0.2)
    assert coverage == pytest.approx(0.5, abs=0.05)


def test_memory_of_a_search_does_not_grow_with_the_queries() -> None:
    """The table of 20,000 queries against a block of 512 would be 82 MB, and sorting it twice that."""
    rng = np.random.default_rng(0)
    queries, blocks = rng.normal(size=(20_000, 2)), [rng.normal(size=(512, 2)) for _ in range(2)]
    tracemalloc.start()
    nearest(queries, blocks, k=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6
