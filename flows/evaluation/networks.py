"""The network that a person chose: one from a file, or the one that is trained on half of the reference."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from components.errors import ConfigError, WeightsError
from components.files import file_sha256
from components.metrics.config import FeatureConfig
from components.metrics.networks.config import NetworkConfig
from components.training.config import TrainConfig
from flows.evaluation.sets import PictureSet

if TYPE_CHECKING:
    import torch

    from components.metrics.networks.base import FeatureNetwork

KINDS = ("trained", "inception", "timm", "dinov2", "clip")
_MOST_TRAINED = 5_000
"""Pictures of the reference that a network is trained on: they are held in memory."""
_BATCH = 64


@dataclass(frozen=True)
class Choice:
    """`--network`, `--weights`, `--model` and `--network-px`."""

    kind: str | None
    """None: that of params.yaml."""
    weights: Path | None = None
    model: str | None = None
    input_px: int | None = None

    def config(self) -> Any:
        """The member of the union. Raises: ConfigError for options that do not go together, WeightsError."""
        if self.kind not in KINDS or self.kind == "trained":
            raise ConfigError("there is no such network", got=f"--network {self.kind}", expected=" | ".join(KINDS))
        if self.weights is None:
            raise ConfigError(
                "the network needs its file",
                got=f"--network {self.kind}",
                expected="--weights FILE",
                fix="fetch the file once, or use --network trained",
            )
        if (self.model is not None) != (self.kind == "timm"):
            fix = "--network timm --model resnet50.a1_in1k" if self.kind == "timm" else "leave --model out"
            raise ConfigError("--model names timm's model", got=f"--network {self.kind}", fix=fix)
        if self.input_px is not None and self.kind != "timm":
            raise ConfigError("--network-px is of timm's models", got=f"--network {self.kind}", fix="leave it out")
        if not self.weights.is_file():
            raise WeightsError("the weights file does not exist", got=self.weights)
        pin = {"uri": str(self.weights), "sha256": file_sha256(self.weights)}
        timm = {"name": self.model, "input_px": self.input_px} if self.kind == "timm" else {}
        return TypeAdapter(NetworkConfig).validate_python({"kind": self.kind, "weights": pin} | timm)


class _Loaded:
    """The first pictures of a set, in memory, as a training reads them."""

    labels = None

    def __init__(self, pictures: PictureSet) -> None:
        kept: list[np.ndarray] = []
        for images in pictures.batches(_BATCH):
            kept.append(images)
            if sum(map(len, kept)) >= _MOST_TRAINED:
                break
        self._images = np.concatenate(kept)[:_MOST_TRAINED]

    def __len__(self) -> int:
        return len(self._images)

    def load(self, indices: np.ndarray, px: int) -> np.ndarray:  # noqa: ARG002  (the network resizes)
        chosen: np.ndarray = self._images[indices]
        return chosen


def train_on(
    pictures: PictureSet, features: FeatureConfig, how: TrainConfig, *, seed: int, device: "torch.device"
) -> "FeatureNetwork":
    """A network that learned to tell how pictures were turned and to redraw them. Raises: ConfigError."""
    from components.metrics.fitting import RealImages, fit_network
    from components.metrics.networks.trained import TrainedFeatures
    from components.training.checkpoint import lone_worker

    loaded = _Loaded(pictures)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        worker = lone_worker(device, Path(scratch))
        images = RealImages(loaded, features.px)
        net, _ = fit_network(features, "self", images, 0, how, worker, seed=seed)
    return TrainedFeatures(net, "self")
