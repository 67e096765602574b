"""What an evaluation shows, without one."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from components.cache.samples import SamplesInfo
from components.images.pictures import png_bytes
from components.metrics.advice import Advice, advise
from components.metrics.judge import Judge
from components.metrics.networks.base import Identity
from flows.pipeline.params import load_params
from flows.stages.evaluate import page
from flows.stages.evaluate.page import Pictures
from tests.support.hostile import HOSTILE

METRICS = {
    "fd": 2.5,
    "fd_low": 2.0,
    "fd_high": 3.0,
    "fd_floor": 1.25,
    "fd_ratio": 2.0,
    "precision": 0.9,
    "precision_real": 0.93,
    "recall": 0.8,
    "recall_real": 0.95,
    "kid": 0.002,
    "kid_floor": 0.0001,
    "mind": 1.5,
    "mind_floor": 0.5,
    "memorization_share": 0.041,
    "memorization_share_pixels": 0.02,
    "memorization_expected": 0.05,
    "judge_blind": 0.0,
    "precision_blind": 0.0,
    "control_n": 135.0,
    "control_fd_real": 1.4,
    "control_fd_generated": 2.7,
    "control_precision_real": 0.92,
    "control_recall_real": 0.94,
    **{
        f"control_{number}_{name}": value
        for name, fd in (("blurred", 5.0), ("shuffled", 9.0), ("noise", 12.0))
        for number, value in {
            "fd": fd,
            "precision": 0.2,
            "recall": 0.3,
            "p_distance": 0.001,
            "p_precision": 0.01,
        }.items()
    },
    "blockiness": 1.2,
    "blockiness_real": 0.97,
    "blockiness_period": 4.0,
    "equivalent_px": 5.3,
    "equivalent_px_real": 8.0,
    "n_train": 1257.0,
    "n_held_out": 270.0,
}
CLASSES = {
    "inception_score": 8.1,
    "inception_score_real": 9.2,
    "class_entropy": 2.2,
    "class_entropy_real": 2.3,
    "class_kl": 0.01,
}
REPRESENTATIONS = {
    "representation_fd": 1.0,
    "representation_fd_floor": 0.5,
    "condition_cosine": 0.7,
    "condition_cosine_shuffled": 0.1,
}
OWN = {"own_picture_r1": 0.1, "own_picture_r5": 0.3, "own_picture_chance": 0.02, "own_picture_n": 270.0}
JUDGE = Judge(cast(Any, SimpleNamespace(identity=Identity("trained", "labels", "ab" * 32, "to 8"))), "labels")
ADVICE = advise(20_000, 10_000, 16, k=3)
PNG = png_bytes(np.full((2, 2, 3), 7, np.uint8))


def evaluation_page(
    metrics: dict[str, float] = METRICS, blind: Sequence[str] = (), advice: Advice = ADVICE, **changes: Any
) -> str:
    """The page of an evaluation of made-up numbers, whose classes and parents have hostile names."""
    info = SamplesInfo(
        n=1200,
        batch_size=25,
        px=8,
        dim=None,
        has_class=False,
        sampling={"representations": "rdm", "why": HOSTILE},
        pixels={"model": {"kind": "dit", "conditions": [{"kind": "representation"}]}},
        rdm=None,
        parents={},
    )
    params = load_params(Path(__file__).parents[2] / "presets/smoke.yaml").evaluate
    content: dict[str, Any] = {
        "reading": page.Reading(JUDGE, blind, advice),
        "shown": Pictures(PNG, PNG, PNG, PNG, None),
        "parents": {"sample": HOSTILE},
        "plots": [
            page.control_plot(metrics),
            page.class_plot(np.array([0, 1]), np.array([0, 1]), [HOSTILE, "b"]),
        ],
    }
    return page.page(info, params, metrics=metrics, **(content | changes))
