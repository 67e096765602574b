"""Training and attention, measured as ratios: what the cache of representations and fused attention save."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.table import Row
from components.diffusion.schedule import ScheduleConfig
from components.encoders.base import FrozenEncoder
from components.encoders.config import MoCoV3Config
from components.generators.config import GeneratorData
from components.nn.attention import Attention
from components.rdm import RdmConfig
from components.target import TargetSpec
from components.training.checkpoint import lone_worker
from components.training.config import EmaConfig, OptimConfig, TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.step import Stepper
from components.training.worker import Worker

PAPER, DIGITS = "ViT-B/16, 224 px (the paper's)", "preset digits, 8 px"
_VIT: dict[str, Any] = {
    "kind": "mocov3",
    "weights": None,
    "freeze_patches": False,
    "output": "projector",
    "mlp_ratio": 4.0,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
ENCODERS: dict[str, dict[str, Any]] = {
    PAPER: _VIT
    | {
        "input_px": 224,
        "patch_px": 16,
        "width": 768,
        "depth": 12,
        "heads": 12,
        "projector_hidden": 4096,
        "projector_dim": 256,
    },
    DIGITS: _VIT
    | {
        "input_px": 8,
        "patch_px": 4,
        "width": 64,
        "depth": 4,
        "heads": 2,
        "mlp_ratio": 2.0,
        "projector_hidden": 256,
        "projector_dim": 64,
    },
}
RDMS = {PAPER: {"width": 1536, "depth": 12, "time_dim": 256}, DIGITS: {"width": 256, "depth": 6, "time_dim": 64}}
SIZES = {PAPER: (8, 32, 64), DIGITS: (32, 256)}
TARGET_CACHE = 15.0


def best(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Shortest wall time of each call; the calls take turns, so that a busy machine does not favor one of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if i:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return {name: min(measured) for name, measured in times.items()}


def cache_rows() -> list[Row]:
    """One optimizer step of the RDM, EMA included: representations from the cache against encoding the images first."""
    rows = []
    for name, sizes in SIZES.items():
        config = MoCoV3Config.model_validate(ENCODERS[name])
        encoder = config.build()
        for batch_size in sizes:
            step = _rdm_step(config.dim, batch_size, **RDMS[name])
            images = torch.rand(batch_size, 3, config.input_px, config.input_px)
            runs = {"cached_s": partial(step, encoder(images)), "online_s": partial(_online, step, encoder, images)}
            raw = best(runs, repeats=4 if name == PAPER else 40)
            target = TARGET_CACHE if (name, batch_size) == (PAPER, 32) else None
            ratio = raw["online_s"] / raw["cached_s"]
            where = f"{name}, batch {batch_size}"
            rows.append(Row("RDM step: encoder in the loop / cached", where, ratio, "x", target, raw))
    return rows


def _online(step: Callable[[Tensor], object], encoder: FrozenEncoder, images: Tensor) -> object:
    return step(encoder(images))


def _rdm_step(dim: int, batch_size: int, *, width: int, depth: int, time_dim: int) -> Callable[[Tensor], object]:
    schedule = ScheduleConfig(kind="sqrt_linear", n_times=1000)
    config = RdmConfig(
        kind="residual_mlp",
        dim=dim,
        width=width,
        depth=depth,
        time_dim=time_dim,
        conditions=(),
        context_dim=1,
        schedule=schedule,
        prediction="x0",
        min_snr=None,
        variance="fixed",
    )
    target = TargetSpec(space="pixels", shape=(1, 8, 8), dtype="uint8", n_codes=None, image_px=8)
    rdm = config.build(GeneratorData(target=target, dim=dim, classes=None))
    trainable = GeneratorTrainable(rdm, EmaConfig(decay=0.9999, rule="ramped"))
    optimizer = OptimConfig(kind="adamw", lr=5.12e-4, betas=(0.9, 0.999), weight_decay=0.01, decay="all")
    train = TrainConfig(
        steps=10**6,
        batch_size=batch_size,
        seed=0,
        optimizer=optimizer,
        warmup_steps=0,
        schedule="constant",
        clip_norm=None,
        precision="fp32",
        log_every=100,
    )
    stepper = Stepper(trainable, train, _worker())
    count = iter(range(10**6))
    return lambda z: stepper(next(count), {"representation": z})


def _worker() -> Worker:
    return lone_worker(torch.device("cpu"), Path())


class ExplicitAttention(nn.Module):
    """The same attention with its weights multiplied out, as the reference code does."""

    def __init__(self, fused: Attention) -> None:
        super().__init__()
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        b, n, dim = x.shape
        heads = self.fused.heads
        q, k, v = self.fused.qkv(x).reshape(b, n, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (dim // heads) ** -0.5).softmax(-1)
        out: Tensor = self.fused.proj((weights @ v).transpose(1, 2).reshape(b, n, dim))
        return out


def attention_rows() -> list[Row]:
    """Forward and backward of one attention layer, explicit softmax over SDPA."""
    rows = []
    for name, (batch, tokens, dim, heads) in {
        "ViT-B/16: 197 tokens, 12 heads, batch 16": (16, 197, 768, 12),
        "MAGE-B: 257 tokens, 12 heads, batch 16": (16, 257, 768, 12),
        "DiT: 1024 tokens, 6 heads, batch 4": (4, 1024, 384, 6),
        "digits: 16 tokens, 4 heads, batch 64": (64, 16, 64, 4),
    }.items():
        fused = Attention(dim, heads, qkv_bias=True)
        explicit = ExplicitAttention(fused)
        x = torch.randn(batch, tokens, dim, requires_grad=True)
        torch.testing.assert_close(fused(x), explicit(x), atol=1e-4, rtol=1e-4)

        runs = {"explicit_s": partial(_both_ways, explicit, x), "sdpa_s": partial(_both_ways, fused, x)}
        raw = best(runs, repeats=10)
        ratio = raw["explicit_s"] / raw["sdpa_s"]
        rows.append(Row("attention: explicit softmax / SDPA", name, ratio, "x", None, raw))
    return rows


def _both_ways(layer: nn.Module, x: Tensor) -> None:
    layer(x).square().mean().backward()
