"""The published RDM in numbers.

Provenance: LTH14/rcg at 0c4433c, measured on its own code (float32, torch 2.15): parameter counts on a meta device,
schedule entries, sampler times and the error of a perfect denoiser. Tolerances are the digits that were recorded.
"""

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from components.conditions.ports import Ports
from components.diffusion.process import alpha_bars, sampler_steps
from components.diffusion.samplers import Denoised, ddim
from components.diffusion.schedule import ScheduleConfig, valid_counts
from components.rdm import RdmConfig
from components.rng import BatchRng, image_rng
from tests.support.generators import BY_CLASS, build_rdm

SCHEDULE = ScheduleConfig(kind="sqrt_linear", n_times=1000)
PUBLISHED = RdmConfig(
    kind="residual_mlp",
    dim=256,
    width=1536,
    depth=12,
    time_dim=256,
    conditions=(),
    context_dim=512,
    schedule=SCHEDULE,
    prediction="x0",
    min_snr=None,
    variance="fixed",
)


def _shapes(config: RdmConfig, n_classes: int | None) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(p.shape) for name, p in build_rdm(config, n_classes).net.named_parameters()}


def test_parameter_counts() -> None:
    plain = _shapes(PUBLISHED, None)
    labeled = _shapes(PUBLISHED.model_copy(update={"conditions": BY_CLASS}), 1000)
    assert len(plain) == 130
    assert sum(math.prod(s) for s in plain.values()) == 62_721_280
    assert sum(math.prod(s) for s in labeled.values()) == 72_176_896


def test_the_class_table_has_a_row_of_512_per_class() -> None:
    with torch.device("meta"):
        rdm = build_rdm(PUBLISHED.model_copy(update={"conditions": BY_CLASS}), 1000)
    assert tuple(cast(Any, rdm.conditioner["class"]).table.weight.shape) == (1000, 512)


def test_parameter_names_and_shapes() -> None:
    shapes = _shapes(PUBLISHED, None)
    wide = {
        "in_layers.0.weight": (1536,),
        "in_layers.0.bias": (1536,),
        "in_layers.2.weight": (1536, 1536),
        "in_layers.2.bias": (1536,),
        "emb_layers.1.weight": (1536, 256),
        "emb_layers.1.bias": (1536,),
        "out_layers.0.weight": (1536,),
        "out_layers.0.bias": (1536,),
        "out_layers.3.weight": (1536, 1536),
        "out_layers.3.bias": (1536,),
    }
    expected = {
        "time_embed.0.weight": (256, 1536),
        "time_embed.0.bias": (256,),
        "time_embed.2.weight": (256, 256),
        "time_embed.2.bias": (256,),
        "input_proj.weight": (1536, 256),
        "input_proj.bias": (1536,),
        "out.0.weight": (1536,),
        "out.0.bias": (1536,),
        "out.2.weight": (256, 1536),
        "out.2.bias": (256,),
    }
    expected |= {f"res_blocks.{i}.{name}": shape for i in range(12) for name, shape in wide.items()}
    assert shapes == expected


def test_schedule_entries() -> None:
    ab = alpha_bars(SCHEDULE)
    assert ab[[0, 249, 499]].tolist() == pytest.approx([0.9985, 0.5105, 0.1158], abs=5e-5)
    assert float(ab[749]) == pytest.approx(0.00844, abs=5e-6)
    assert float(ab[999]) == pytest.approx(1.423e-4, abs=5e-8)


def test_sampler_times() -> None:
    assert [s.t for s in sampler_steps(SCHEDULE, 250, "reference")] == list(range(997, 0, -4))
    assert [s.t for s in sampler_steps(SCHEDULE, 8, "reference")] == [876, 751, 626, 501, 376, 251, 126, 1]
    assert sampler_steps(SCHEDULE, 250, "reference")[-1].ab_prev == pytest.approx(0.9985)
    assert valid_counts(1000, "reference") == [1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, 500]


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_perfect_denoiser_leaves_an_rms_error_of_0_0388(eta: float) -> None:
    n = 64
    z = torch.randn(n, 256, generator=torch.Generator().manual_seed(0))
    z = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)

    def oracle(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        return Denoised(z, None)

    rng = image_rng(0, 0, n, stream="rdm")
    steps = sampler_steps(SCHEDULE, 250, "reference")
    drawn = ddim(oracle, rng.normal(256), Ports(), steps, eta=eta, rng=rng)
    assert float((drawn - z).square().mean().sqrt()) == pytest.approx(0.0388, abs=5e-4)


def test_the_loss_starts_at_the_mean_square_of_a_standardized_representation() -> None:
    rdm = build_rdm(PUBLISHED.model_copy(update={"width": 64, "depth": 2}), None)
    z = torch.randn(32, 256, generator=torch.Generator().manual_seed(0))
    z = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)
    loss = rdm.loss({"representation": z}, BatchRng(0, 32))
    assert loss.tolist() == pytest.approx([255 / 256] * 32, rel=1e-5)


def test_norm_epsilons() -> None:
    with torch.device("meta"):
        net = build_rdm(PUBLISHED, None).net
    norms = {name: m.eps for name, m in net.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    assert {eps for name, eps in norms.items() if name.startswith("res_blocks")} == {1e-5}
    assert norms["out.0"] == 1e-6
    assert len(norms) == 25
