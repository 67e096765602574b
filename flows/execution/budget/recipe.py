"""The params of a collection at a size: parts that were tried on two cores (docs/LOG.md)."""

from collections.abc import Mapping
from typing import Any

from flows.execution.budget.survey import Survey

SIZES = (16, 32, 64)
"""Sides in pixels that were tried, the cheapest first."""
BATCH = {"encoder": 128, "rdm": 128, "pixels": 32, "evaluate": 64}
"""Examples per training step."""
DIM = 64
"""Of the representations; fewer where the encoder's are, or where there are hardly any pictures to find axes in."""
PAINTER_STEPS, RDM_STEPS = 12, 16
"""Steps for a picture and for a representation."""
GUIDANCE = 1.0
"""Of the painter (docs/LOG.md); it is evaluated twice at each step."""
PAINTER_EVALUATIONS = 2 * PAINTER_STEPS
_PAINTERS: dict[int, dict[str, int]] = {
    16: {"width": 160, "depth": 4, "heads": 4, "stride": 4, "channels": 32},
    32: {"width": 224, "depth": 4, "heads": 4, "stride": 8, "channels": 32},
    64: {"width": 256, "depth": 6, "heads": 8, "stride": 8, "channels": 32},
}
_LEAST_STRIDE = 4
"""Pixels along a side of the smallest tokens."""
_PROBE = {"batch_size": 256, "max_images": 5000, "k_neighbors": 5, "weight_decay": 0.001, "iterations": 100}
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def recipe(survey: Survey, size: int, steps: Mapping[str, int], *, n_views: int, n_samples: int) -> dict[str, Any]:
    """All sections of params.yaml. `steps`: those of encoder, rdm, pixels and evaluate, where they are trained."""
    color = survey.channels == 3
    return {
        "collect": _collect(survey),
        "encoder": _brought(survey.encoder, survey)
        if survey.encoder
        else _encoder(size, steps["encoder"], _batch("encoder", survey), color=color),
        "codec": {
            "numerics": 2,
            "model": {"kind": "none", "channels": survey.channels, "px": size},
            "seed": 0,
            "weights": None,
            "train": None,
            "objective": None,
        },
        "encode": _encode(survey, n_views),
        "rdm": _rdm(steps["rdm"], _batch("rdm", survey), dim(survey)),
        "pixels": _pixels(size, steps["pixels"], _batch("pixels", survey)),
        "sample": {
            "numerics": 1,
            "n": n_samples,
            "batch_size": 50,
            "seed": 0,
            "representations": "rdm",
            "grid": min(100, n_samples),
            "rdm": _sampling(RDM_STEPS),
            "pixels": _sampling(PAINTER_STEPS, GUIDANCE),
        },
        "evaluate": {
            "numerics": 4,
            "split": "test",
            "seed": 0,
            **_judge(survey, size, steps),
            "batch_size": 256,
            "k_neighbors": 3,
            "n_bootstrap": 100,
            "percentile": 5.0,
        },
        "bundle": {"numerics": 1, "with_encoder": True},
        **_promotion(survey, n_samples),
    }


def _encode(survey: Survey, n_views: int) -> dict[str, Any]:
    color = survey.channels == 3
    return {
        "numerics": 1,
        "batch_size": 128,
        "views": {
            "seed": 0,
            "n_views": n_views,
            "crop_area": [0.8, 1.0] if color else [0.9, 1.0],
            "flip_prob": 0.5 if color else 0.0,
        },
        "max_reject_share": _allowed(survey.constant, 0.01),
    }


def _promotion(survey: Survey, n_samples: int) -> dict[str, Any]:
    """The sections of champions: when one gives way, and when a new one is trained."""
    return {
        "gate": {
            "seed": 1,
            "n": max(200, n_samples),
            "n_bootstrap": 400,
            "level": 0.95,
            "margin": 0.2,
            "margin_known": 0.3,
            "min_precision": 0.3,
            "min_recall": 0.1,
            "max_memorization": 0.2,
        },
        "retrain": {
            "min_new_images": max(10, survey.n // 20),
            "refit": "never",
            "refit_images": max(100, survey.n // 2),
            "max_drift": 4.0,
            "init": "none",
        },
    }


def sizes(survey: Survey) -> tuple[int, ...]:
    """Those that pictures are not enlarged to, and the one that all have; the smallest in any case."""
    found = {size for size in SIZES if size == SIZES[0] or size <= survey.side}
    is_common = survey.smallest == survey.largest and survey.side % _LEAST_STRIDE == 0
    if is_common and SIZES[0] < survey.side < SIZES[-1]:
        found.add(survey.side)
    return tuple(sorted(found))


def _judge(survey: Survey, size: int, steps: Mapping[str, int]) -> dict[str, Any]:
    """The person's network, read in a few axes, or one that is trained here."""
    n = n_features(survey)
    if survey.judge is not None:
        return {"features": {"kind": "ready", "network": survey.judge, "dim": n, "allow_same": False}, "train": None}
    return {
        "features": {"task": "auto", "px": size, "width": 32, "dim": n},
        "train": _train(steps["evaluate"], _batch("evaluate", survey), 2e-3, weight_decay=0.05),
    }


def dim(survey: Survey) -> int:
    """Numbers of a representation, as generators see it."""
    return DIM if survey.encoder is None else min(DIM, survey.encoder["dim"], max(2, n_train(survey) // 4))


def test_share(survey: Survey) -> float:
    """More of a small collection is held out: fewer than ten pictures measure nothing."""
    return 0.3 if survey.n < 200 else 0.2


def n_train(survey: Survey) -> int:
    """Pictures to train on, about: splits are dealt by content."""
    return int(survey.n * (1 - 0.15 - test_share(survey)) * (1 - survey.unreadable))


def n_features(survey: Survey) -> int:
    """Of the judge: a fifth of the held-out pictures at most, and those may be fewer than their share."""
    held_out = survey.n * test_share(survey) * (1 - survey.unreadable) * 0.6
    return max(2, min(64, int(held_out / 5)))


def _batch(stage: str, survey: Survey) -> int:
    """No more than there are training pictures, as a power of two."""
    return min(BATCH[stage], 1 << max(4, n_train(survey).bit_length() - 1))


def _collect(survey: Survey) -> dict[str, Any]:
    return {
        "numerics": 1,
        "base": "all",
        "labels": survey.labels,
        "split": {"seed": 0, "val_share": 0.15, "test_share": test_share(survey), "near_bits": survey.near_bits},
        "decode": {"background": [255, 255, 255], "max_pixels": 50_000_000},
        "max_reject_share": _allowed(survey.unreadable, 0.02),
    }


def _encoder(size: int, steps: int, batch: int, *, color: bool) -> dict[str, Any]:
    px = 32 if size == SIZES[0] else size
    return {
        "numerics": 2,
        "model": {
            "kind": "mocov3",
            "weights": None,
            "input_px": px,
            "patch_px": px // 4,
            "width": 96,
            "depth": 4,
            "heads": 6,
            "mlp_ratio": 2.0,
            "projector_hidden": 512,
            "projector_dim": DIM,
            "output": "projector",
            "freeze_patches": False,
            **(_IMAGENET if color else {"mean": [0.5] * 3, "std": [0.5] * 3}),
        },
        "px": px,
        "seed": 0,
        "train": _train(steps, batch, 1.5e-3, betas=[0.9, 0.95], weight_decay=0.05, clip_norm=None),
        "contrastive": {
            "kind": "contrastive",
            "temperature": 0.2,
            "momentum": 0.99,
            "predictor_hidden": 512,
            "views": _color_views() if color else _gray_views(),
        },
        "probe": dict(_PROBE),
    }


def _brought(model: Mapping[str, Any], survey: Survey) -> dict[str, Any]:
    """A ready-made encoder, its numbers brought to a few axes of equal spread."""
    axes = dim(survey)
    reduce = {"reduce": {"kind": "pca", "dim": axes, "whiten": True}} if axes < model["dim"] else {}
    return {
        "numerics": 2,
        "model": {**model, **reduce},
        "px": min(model["input_px"], max(SIZES[0], survey.side)),
        "seed": 0,
        "train": None,
        "contrastive": None,
        "probe": dict(_PROBE),
    }


def _color_views() -> list[list[dict[str, Any]]]:
    common: list[dict[str, Any]] = [
        {"kind": "crop", "area": [0.35, 1.0], "aspect": [0.75, 1.33]},
        {"kind": "flip", "prob": 0.5},
        {"kind": "color_jitter", "prob": 0.8, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.05},
        {"kind": "grayscale", "prob": 0.1},
    ]
    blurs: list[dict[str, Any]] = [{"kind": "blur", "prob": prob, "sigma_px": [0.3, 1.5]} for prob in (0.5, 0.1)]
    return [[*common, blurs[0]], [*common, blurs[1], {"kind": "solarize", "prob": 0.1, "threshold": 0.5}]]


def _gray_views() -> list[list[dict[str, Any]]]:
    """Without mirror images: gray pictures may be letters or digits."""
    view: list[dict[str, Any]] = [
        {"kind": "crop", "area": [0.5, 1.0], "aspect": [0.75, 1.33]},
        {
            "kind": "warp",
            "rotate_deg": 10.0,
            "scale": [0.9, 1.1],
            "stretch": 0.1,
            "shear": 0.1,
            "shift": 0.05,
            "elastic": 0.03,
            "fill": None,
        },
        {"kind": "noise", "std": [0.0, 0.05]},
    ]
    return [view, view]


def _rdm(steps: int, batch: int, dim: int) -> dict[str, Any]:
    return {
        "numerics": 2,
        "model": {
            "kind": "residual_mlp",
            "dim": dim,
            "width": 256,
            "depth": 4,
            "time_dim": 128,
            "conditions": [],
            "context_dim": 64,
            "schedule": {"kind": "sqrt_linear", "n_times": 1000},
            "prediction": "x0",
            "min_snr": None,
            "variance": "fixed",
        },
        "seed": 0,
        "weights": None,
        "init": None,
        "train": _train(steps, batch, 3e-3, betas=[0.9, 0.999], decay="all", clip_norm=None),
        "ema": _ema(steps),
        "check": {"n": 500, "batch_size": 250, "sampling": _sampling(RDM_STEPS)},
    }


def _pixels(size: int, steps: int, batch: int) -> dict[str, Any]:
    return {
        "numerics": 2,
        "model": {
            "kind": "hybrid",
            "conditions": [{"kind": "representation", "port": "vector", "drop_prob": 0.1, "project": True}],
            **_painter(size),
            "mlp_ratio": 4.0,
            "schedule": {"kind": "cosine", "n_times": 1000},
            "prediction": "x0",
            "min_snr": None,
            "weighting": "v",
            "variance": "fixed",
            "latents": "standardized",
        },
        "seed": 0,
        "weights": None,
        "init": None,
        "train": _train(steps, batch, 1.5e-3),
        "ema": _ema(steps),
        "preview": {"every": max(1, steps // 3), "n": 32, "sampling": _sampling(PAINTER_STEPS, GUIDANCE)},
    }


def _painter(size: int) -> dict[str, int]:
    """Of the largest size tried up to this one; fewer pixels per token where its stride does not divide the side."""
    found = _PAINTERS[max(tried for tried in SIZES if tried <= size)]
    return found if size % found["stride"] == 0 else found | {"stride": _LEAST_STRIDE}


def _train(
    steps: int,
    batch: int,
    lr: float,
    *,
    betas: list[float] | None = None,
    weight_decay: float = 0.01,
    decay: str = "matrices",
    clip_norm: float | None = 1.0,
) -> dict[str, Any]:
    return {
        "steps": steps,
        "batch_size": batch,
        "seed": 0,
        "optimizer": {
            "kind": "adamw",
            "lr": lr,
            "betas": betas or [0.9, 0.99],
            "weight_decay": weight_decay,
            "decay": decay,
        },
        "warmup_steps": min(100, steps // 10),
        "schedule": "cosine",
        "clip_norm": clip_norm,
        "precision": "fp32",
        "log_every": max(1, min(50, steps // 50)),
    }


def _ema(steps: int) -> dict[str, Any]:
    """Over the last twentieth of the training, about."""
    return {"decay": round(min(0.9995, 1 - 1 / max(20.0, steps / 20)), 4), "rule": "ramped"}


def _sampling(n: int, guidance: float = 0.0) -> dict[str, Any]:
    how = {"kind": "diffusion", "sampler": "dpm_solver_2m", "steps": n, "spacing": "trailing"}
    return how | {"eta": 0.0, "guidance": guidance}


def _allowed(share: float, least: float) -> float:
    """What may be left out: twice what was seen."""
    return round(min(0.9, max(least, 2 * share)), 3)
