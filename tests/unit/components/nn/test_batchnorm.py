"""Statistics, outputs and gradients of two ranks against one process that holds all rows."""

from typing import Any

import pytest
import torch
from torch import nn

from components.nn.batchnorm import GlobalBatchNorm
from components.nn.gather import gather_rows, sum_over_ranks
from tests.support.ranks import run_ranks


def _rows(rank: int) -> slice:
    return slice(0, 3) if rank == 0 else slice(3, 8)  # uneven on purpose


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 5, generator=generator) * 3 + 1, torch.randn(8, 5, generator=generator)


def _work(rank: int, _n: int) -> dict[str, Any]:
    x, weight = _inputs()
    mine = x[_rows(rank)].clone().requires_grad_(True)
    layer = GlobalBatchNorm(5)
    y = layer(mine)
    (y * weight[_rows(rank)]).sum().backward()
    rows, start = gather_rows(mine)
    everywhere = sum_over_ranks(rows.square().sum() * (rank + 1))
    (gradient,) = torch.autograd.grad(everywhere, mine)
    return {
        "y": y.detach(),
        "x": mine.grad,
        "weight": layer.weight.grad,
        "bias": layer.bias.grad,
        "rows": rows.detach(),
        "start": start,
        "gathered": gradient,
        "running": (layer.running_mean, layer.running_var, layer.num_batches_tracked),
    }


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    return run_ranks(2, _work)


@pytest.mark.processes
def test_two_ranks_equal_torchs_batchnorm_of_all_rows(ranks: list[dict[str, torch.Tensor]]) -> None:
    x, weight = _inputs()
    x.requires_grad_(True)
    layer = nn.BatchNorm1d(5)
    y = layer(x)
    (y * weight).sum().backward()
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(torch.cat([r["y"] for r in ranks]), y.detach(), **close)
    torch.testing.assert_close(torch.cat([r["x"] for r in ranks]), x.grad, **close)
    torch.testing.assert_close(ranks[0]["weight"] + ranks[1]["weight"], layer.weight.grad, **close)
    torch.testing.assert_close(ranks[0]["bias"] + ranks[1]["bias"], layer.bias.grad, **close)
    for rank in ranks:
        for got, expected in zip(rank["running"], (layer.running_mean, layer.running_var), strict=False):
            torch.testing.assert_close(got, expected, **close)
        assert rank["running"][2] == 1


@pytest.mark.processes
def test_gathered_rows_carry_gradients_back(ranks: list[dict[str, torch.Tensor]]) -> None:
    x, _ = _inputs()
    for i, rank in enumerate(ranks):
        assert torch.equal(rank["rows"], x)
        assert rank["start"] == _rows(i).start
        # every rank's loss is (1 + 2) sum x^2 of all rows, and both ranks' losses reach each row
        torch.testing.assert_close(rank["gathered"], 2 * 3 * 2 * x[_rows(i)])


def test_one_process_is_torchs_batchnorm() -> None:
    x, _ = _inputs()
    ours, theirs = GlobalBatchNorm(5, affine=False), nn.BatchNorm1d(5, affine=False)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.eval()(x[:1]), theirs.eval()(x[:1]))
    rows, start = gather_rows(x)
    assert rows is x
    assert start == 0
