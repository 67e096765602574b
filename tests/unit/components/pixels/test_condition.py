"""Conditions: what is embedded, what is dropped, and what is drawn when nothing is given."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from components.errors import ConfigError, ShapeError
from components.pixels.condition import ConditionConfig, Conditioner, spherical_kmeans
from components.rng import BatchRng, RowRng
from tests.support.folders import randomize

DIM, WIDTH = 6, 4
KINDS = ("representation", "none", "class", "cluster")


def _conditioner(kind: Any, drop_prob: float = 0.5, n_clusters: int = 3) -> Conditioner:
    config = ConditionConfig(kind=kind, drop_prob=drop_prob, n_clusters=n_clusters)
    conditioner = Conditioner(config, width=WIDTH, dim=DIM, n_classes=3)
    randomize(conditioner)
    conditioner.fit(_batch(30), seed=0)
    return conditioner


def _batch(n: int) -> dict[str, Tensor]:
    """Three directions, each a class of its own; row i is of class i % 3."""
    y = torch.arange(n) % 3
    noise = torch.randn(n, DIM, generator=torch.Generator().manual_seed(0))
    return {"representation": 3 * torch.eye(DIM)[y] + 0.2 * noise, "class": y}


def _plain(conditioner: Conditioner, batch: dict[str, Tensor]) -> Tensor:
    return conditioner.for_sampling(batch, RowRng(range(len(batch["class"]))))


@pytest.mark.parametrize("kind", KINDS)
def test_training_drops_exactly_the_drawn_rows(kind: str) -> None:
    conditioner, batch = _conditioner(kind), _batch(50)
    out = conditioner(batch, BatchRng(3, 50))
    dropped = BatchRng(3, 50).uniform() < 0.5
    assert 10 < int(dropped.sum()) < 40
    expected = torch.where(dropped[:, None], conditioner.null_for(50), _plain(conditioner, batch))
    torch.testing.assert_close(out, expected)
    if kind != "none":
        assert not torch.isclose(conditioner.null_for(50), _plain(conditioner, batch)).all(1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient_even_when_nothing_is_dropped(kind: str) -> None:
    conditioner = _conditioner(kind, drop_prob=0.0)
    conditioner(_batch(4), BatchRng(0, 4)).square().sum().backward()
    assert all(p.grad is not None for p in conditioner.parameters())


def test_representation_is_a_linear_map_of_z_and_its_null_is_a_learned_z() -> None:
    conditioner, batch = _conditioner("representation"), _batch(5)
    w, b = conditioner.project.weight, conditioner.project.bias
    torch.testing.assert_close(_plain(conditioner, batch), batch["representation"] @ w.T + b)
    torch.testing.assert_close(conditioner.null_for(1)[0], w @ conditioner.null[0] + b)


def test_a_class_has_its_row_and_an_unlabeled_image_the_null() -> None:
    conditioner = _conditioner("class", drop_prob=0.0)
    out = conditioner({"class": torch.tensor([2, -1, 0])}, BatchRng(0, 3))
    torch.testing.assert_close(
        out, torch.stack([conditioner.table.weight[2], conditioner.null[0], conditioner.table.weight[0]])
    )


def test_clusters_are_found_and_counted() -> None:
    conditioner, batch = _conditioner("cluster"), _batch(30)
    rows = _plain(conditioner, batch)
    assert torch.equal(conditioner.frequencies, torch.full((3,), 1 / 3))
    for y in range(3):
        same = rows[batch["class"] == y]
        assert torch.equal(same, same[:1].expand_as(same))
    assert len(torch.unique(rows, dim=0)) == 3


@pytest.mark.parametrize("kind", ["class", "cluster"])
def test_absent_conditions_are_drawn_by_frequency_and_per_row(kind: str) -> None:
    conditioner = _conditioner(kind)
    conditioner.frequencies.copy_(torch.tensor([0.2, 0.0, 0.8]))
    drawn = conditioner.for_sampling({}, RowRng(range(1000)))
    shares = [(drawn == row).all(1).float().mean().item() for row in conditioner.table.weight]
    assert shares == pytest.approx([0.2, 0.0, 0.8], abs=0.04)
    assert torch.equal(conditioner.for_sampling({}, RowRng(range(10, 20))), drawn[10:20])


def test_frequencies_are_those_of_the_labeled_rows() -> None:
    conditioner = _conditioner("class")
    conditioner.fit({"class": torch.tensor([0, 0, -1, 2, 0])}, seed=0)
    assert conditioner.frequencies.tolist() == [0.75, 0.0, 0.25]


def test_keys_that_are_read_and_needed() -> None:
    read = {kind: _conditioner(kind).conditions for kind in KINDS}
    assert read == {
        "representation": ("representation",),
        "none": (),
        "class": ("class",),
        "cluster": ("representation",),
    }
    assert {kind for kind in KINDS if _conditioner(kind).required} == {"representation"}
    assert [_conditioner(kind).can_guide for kind in KINDS] == [True, False, True, True]
    assert not _conditioner("class", drop_prob=0.0).can_guide


def test_mistakes_are_named() -> None:
    tiny = ConditionConfig.tiny()
    with pytest.raises(ConfigError, match="no labels"):
        Conditioner(tiny.model_copy(update={"kind": "class"}), width=WIDTH, dim=DIM, n_classes=None)
    with pytest.raises(ConfigError, match="no training image has a label"):
        _conditioner("class").fit({"class": torch.tensor([-1, -1])}, seed=0)
    with pytest.raises(ConfigError, match="more clusters than training images"):
        _conditioner("cluster").fit(_batch(2), seed=0)
    with pytest.raises(ConfigError, match="needs a representation"):
        _conditioner("representation").for_sampling({}, RowRng([0]))
    with pytest.raises(ShapeError, match="representation of the wrong shape"):
        _conditioner("representation").for_sampling({"representation": torch.zeros(1, DIM + 1)}, RowRng([0]))
    with pytest.raises(ShapeError, match="class index out of range"):
        _conditioner("class").for_sampling({"class": torch.tensor([3])}, RowRng([0]))


def test_kmeans_finds_the_best_of_all_partitions() -> None:
    """Seven rows, two clusters: all partitions can be tried; a partition scores the lengths of its parts' sums."""
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(5))
    unit = z / z.norm(dim=1, keepdim=True)
    best = 0.0
    for side in itertools.product([False, True], repeat=7):
        mask = torch.tensor(side)
        best = max(best, float(unit[mask].sum(0).norm() + unit[~mask].sum(0).norm()))
    centroids = spherical_kmeans(z, 2, seed=0)
    assert centroids.norm(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert float((unit @ centroids.T).amax(1).sum()) == pytest.approx(best, rel=1e-5)


def test_kmeans_is_a_function_of_rows_and_seed_and_ignores_length() -> None:
    z = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    once = spherical_kmeans(z, 4, seed=2)
    state = torch.random.get_rng_state()
    assert torch.equal(spherical_kmeans(z, 4, seed=2), once)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(spherical_kmeans(z * torch.linspace(1, 9, 40)[:, None], 4, seed=2), once)


def test_kmeans_survives_equal_rows() -> None:
    assert torch.isfinite(spherical_kmeans(torch.ones(5, 3), 3, seed=0)).all()
