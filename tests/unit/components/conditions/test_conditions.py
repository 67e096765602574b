"""Conditions: what is embedded, what is dropped, and what is sampled when nothing is given."""

import itertools
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from components.conditions.clustering import clusters, spherical_kmeans
from components.conditions.config import ClassConfig, RepresentationConfig
from components.conditions.container import Conditions
from components.errors import ConfigError, ShapeError
from components.fields import FieldSpec
from components.rng import BatchRng, RowRng
from components.target import data_fields
from tests.support.folders import randomize
from tests.support.generators import KINDS, PIXEL, conditions

DIM, WIDTH = 6, 4


class Net:
    """A network with all ports."""

    vector_width: int | None = WIDTH
    sequence_width: int | None = WIDTH
    c_extra = 3


def _fields(n_classes: int | None = 3) -> tuple[FieldSpec, ...]:
    return data_fields(DIM, PIXEL, tuple("abc"[:n_classes]) if n_classes else None)


def _conditions(*kinds: str, n_classes: int | None = 3, constant: bool = False, **changes: Any) -> Conditions:
    changes = {"drop_prob": 0.5, **changes}
    configs = [config for kind in kinds for config in conditions(kind, **changes)]
    found = Conditions(configs, Net(), _fields(n_classes), constant=constant)
    randomize(found)
    found.fit(_batch(30), 0, trained=False)
    return found


def _batch(n: int) -> dict[str, Tensor]:
    """Three directions, each a class of its own; row i is of class i % 3."""
    y = torch.arange(n) % 3
    noise = torch.randn(n, DIM, generator=torch.Generator().manual_seed(0))
    return {"representation": 3 * torch.eye(DIM)[y] + 0.2 * noise, "class": y}


def _plain(found: Conditions, batch: dict[str, Tensor], n: int | None = None) -> tuple[Tensor, Tensor]:
    """Embedded rows and nulls on the vector port."""
    ports, null = found.sampling_ports(batch, RowRng(range(n or len(batch["class"]))))
    assert ports.vector is not None
    assert null.vector is not None
    return ports.vector, null.vector


def _trained(found: Conditions, batch: dict[str, Tensor], seed: int = 3) -> Tensor:
    vector = found.training_ports(batch, BatchRng(seed, len(next(iter(batch.values()))))).vector
    assert vector is not None
    return vector


@pytest.mark.parametrize("kind", KINDS)
def test_training_drops_exactly_the_sampled_rows(kind: str) -> None:
    found, batch = _conditions(kind), _batch(50)
    dropped = BatchRng(3, 50).uniform() < 0.5
    assert 10 < int(dropped.sum()) < 40
    rows, null = _plain(found, batch)
    torch.testing.assert_close(_trained(found, batch), torch.where(dropped[:, None], null, rows))
    assert not torch.isclose(null, rows).all(1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    found = _conditions(kind)
    _trained(found, _batch(40)).square().sum().backward()
    assert all(p.grad is not None for p in found.parameters())


def test_representation_is_a_linear_map_of_z_and_its_null_is_a_learned_z() -> None:
    found, batch = _conditions("representation"), _batch(5)
    by_z = cast(Any, found["representation"])
    rows, null = _plain(found, batch)
    w, b = by_z.project.weight, by_z.project.bias
    torch.testing.assert_close(rows, batch["representation"] @ w.T + b)
    torch.testing.assert_close(null[0], w @ by_z.null[0] + b)


def test_a_class_has_its_row_and_an_unlabeled_image_the_null() -> None:
    found = _conditions("class", drop_prob=0.0)
    by_class = cast(Any, found["class"])
    out = _trained(found, {"class": torch.tensor([2, -1, 0])})
    torch.testing.assert_close(out, torch.stack([by_class.table.weight[2], by_class.null[0], by_class.table.weight[0]]))


def test_clusters_are_found_and_counted() -> None:
    found, batch = _conditions("cluster", n_clusters=3), _batch(30)
    rows, _ = _plain(found, batch)
    assert torch.equal(cast(Any, found["cluster"]).frequencies, torch.full((3,), 1 / 3))
    for y in range(3):
        same = rows[batch["class"] == y]
        assert torch.equal(same, same[:1].expand_as(same))
    assert len(torch.unique(rows, dim=0)) == 3


@pytest.mark.parametrize("kind", ["class", "cluster"])
def test_absent_conditions_are_sampled_by_frequency_and_per_row(kind: str) -> None:
    found = _conditions(kind, **({"n_clusters": 3} if kind == "cluster" else {}))
    table = cast(Any, found[kind])
    table.frequencies.copy_(torch.tensor([0.2, 0.0, 0.8]))
    rows, _ = _plain(found, {}, 1000)
    shares = [(rows == row).all(1).float().mean().item() for row in table.table.weight]
    assert shares == pytest.approx([0.2, 0.0, 0.8], abs=0.04)
    again = found.sampling_ports({}, RowRng(range(10, 20)))[0].vector
    assert again is not None
    assert torch.equal(again, rows[10:20])


def test_frequencies_are_those_of_the_labeled_rows_and_clusters_of_trained_weights_stay() -> None:
    found = _conditions("class", "cluster")
    before = cast(Any, found["cluster"]).centroids.clone()
    rows = {**_batch(5), "class": torch.tensor([0, 0, -1, 2, 0])}
    found.fit(rows, 0, trained=True)
    frequencies = found.class_frequencies
    assert frequencies is not None
    assert frequencies.tolist() == [0.75, 0.0, 0.25]
    assert torch.equal(cast(Any, found["cluster"]).centroids, before)


def test_fields_that_are_read_and_needed() -> None:
    assert {kind: _conditions(kind).fields for kind in KINDS} == {
        "representation": ("representation",),
        "class": ("class",),
        "cluster": ("representation",),
    }
    assert {kind for kind in KINDS if _conditions(kind).required} == {"representation"}
    both = _conditions("class", "representation")
    assert both.fields == ("class", "representation")
    assert both.required == ("representation",)


def test_several_conditions_are_added_on_the_vector_port_and_concatenated_on_the_sequence_port() -> None:
    batch = _batch(6)
    both = _conditions("class", "representation", drop_prob=0.0)
    parts = [cast(nn.Module, both[kind])(batch, None) for kind in ("class", "representation")]
    torch.testing.assert_close(_trained(both, batch), parts[0] + parts[1])
    ports, _ = _conditions("class", "representation", port="sequence").sampling_ports(batch, RowRng(range(6)))
    assert ports.vector is None
    assert ports.sequence is not None
    assert ports.sequence.shape == (6, 2, WIDTH)


def test_guidance_pushes_away_from_the_conditions_that_training_drops_alone() -> None:
    configs = [*conditions("class", drop_prob=0.1), *conditions("representation", drop_prob=0.0)]
    found, batch = Conditions(configs, Net(), _fields()), _batch(4)
    randomize(found)
    _, null = found.sampling_ports(batch, RowRng(range(4)))
    by_class, by_z = cast(Any, found["class"]), cast(Any, found["representation"])
    assert null.vector is not None
    torch.testing.assert_close(null.vector, by_class.null + by_z(batch, None))
    assert not found.all_dropped


def test_a_network_that_needs_a_vector_gets_a_learned_one() -> None:
    found = _conditions(constant=True)
    rows, null = _plain(found, {}, 3)
    assert found.constant is not None
    assert torch.equal(rows, found.constant.expand(3, -1))
    assert torch.equal(rows, null)
    assert _conditions("class", constant=True).constant is None
    assert _conditions().sampling_ports({}, RowRng(range(3)))[0].vector is None


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="no labels"):
        _conditions("class", n_classes=None)
    with pytest.raises(ConfigError, match="no training image has a label"):
        _conditions("class").fit({"class": torch.tensor([-1, -1])}, 0, trained=False)
    with pytest.raises(ConfigError, match="more clusters than training images"):
        _conditions("cluster").fit(_batch(2), 0, trained=False)
    with pytest.raises(ConfigError, match="needs a representation"):
        _conditions("representation").sampling_ports({}, RowRng([0]))
    with pytest.raises(ShapeError, match="representation of the wrong shape"):
        _conditions("representation").sampling_ports({"representation": torch.zeros(1, DIM + 1)}, RowRng([0]))
    with pytest.raises(ShapeError, match="index out of range"):
        _conditions("class").sampling_ports({"class": torch.tensor([3])}, RowRng([0]))
    with pytest.raises(ConfigError, match="a port of its own width"):
        _conditions("representation", project=False)


def test_a_port_that_the_network_lacks_is_an_error() -> None:
    class Bare:
        vector_width: int | None = WIDTH
        sequence_width: int | None = None
        c_extra = 0

    config = RepresentationConfig.tiny().model_copy(update={"port": "sequence"})
    with pytest.raises(ConfigError, match="no sequence port for the condition representation"):
        Conditions([config], Bare(), _fields())
    nothing = type("None_", (), {"vector_width": None, "sequence_width": 3, "c_extra": 0})()
    with pytest.raises(ConfigError, match="no vector port"):
        Conditions([ClassConfig.tiny()], nothing, _fields())


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


def test_clusters_of_clear_groups_are_those_groups_nearest_first() -> None:
    rng = torch.Generator().manual_seed(0)
    z = 10 * torch.eye(3).repeat_interleave(20, dim=0) + torch.randn(60, 3, generator=rng)
    found = clusters(z, 3, seed=0)
    assert sorted(sorted(rows.tolist()) for rows in found) == [list(range(i, i + 20)) for i in (0, 20, 40)]
    for rows in found:
        unit = torch.nn.functional.normalize(z[rows], dim=1)
        assert (torch.diff(unit @ torch.nn.functional.normalize(unit.sum(0), dim=0)) <= 1e-5).all()


def test_kmeans_survives_equal_rows() -> None:
    assert torch.isfinite(spherical_kmeans(torch.ones(5, 3), 3, seed=0)).all()
