"""What rdm and pixels promise of starting from a finished run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.training.config import TrainConfig
from tests.support.folders import FolderArtifact
from tests.support.toys import worker

REFUSED = [
    ({"init": "champion"}, "belongs in retrain.init"),
    ({"init": "sha256:12"}, "content digest"),
    ({"init": f"sha256:{'a' * 64}", "weights": {"uri": "x", "sha256": "b" * 64}}, "both say where to start"),
]
"""Starts that may move or are ambiguous, and a word of the refusal."""


def check_start(run: Callable[..., Any], params: Any, inputs: Any, root: Path) -> None:
    """A run that cannot learn keeps the weights of `in/init`, which it starts from; a cold one has others."""
    first, weights = FolderArtifact(root / "in/init"), "weights.safetensors"
    run(params, inputs, first, worker(root))
    still = TrainConfig.tiny().optimizer.model_copy(update={"lr": 1e-30, "weight_decay": 0.0})
    train = TrainConfig.tiny().model_copy(update={"optimizer": still})
    cold = params.model_copy(update={"train": train})
    run(
        cold.model_copy(update={"init": f"sha256:{first.digest}"}), inputs, FolderArtifact(root / "still"), worker(root)
    )
    assert FolderArtifact(root / "still").read_bytes(weights) == first.read_bytes(weights)
    run(cold, inputs, FolderArtifact(root / "cold"), worker(root))
    assert FolderArtifact(root / "cold").read_bytes(weights) != first.read_bytes(weights)
