"""What a feature network is: bytes of images -> features, and where it has them, spatial features and probabilities."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from components.errors import ConfigError, DataError, DivergedError, ShapeError


@dataclass(frozen=True)
class Seen:
    """What a network makes of a batch. All are finite or the network's fault."""

    features: np.ndarray
    """(b, d) float32"""
    spatial: np.ndarray | None = None
    """(b, s) of sFID: features that know where in the image something is."""
    probabilities: np.ndarray | None = None
    """(b, k) of the classes of the inception score."""


@dataclass(frozen=True)
class Identity:
    """Which network it is, as part of a protocol: equal identities give equal features, up to rounding."""

    kind: str
    model: str
    weights: str
    """sha256 of the file, or of the tensors that were trained on the spot."""
    resize: str
    """How images get to the network's size, in words."""

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.kind}: {self.model}, sha256 {self.weights[:12]}; {self.resize}"


class FeatureNetwork(Protocol):
    """A frozen network. Raises: ShapeError for what is no batch of images."""

    @property
    def identity(self) -> Identity: ...
    def to(self, device: torch.device) -> "FeatureNetwork": ...
    def __call__(self, images: np.ndarray) -> Seen: ...


class Frozen:
    """The part that the networks share: a module in eval mode, on one device, without gradients."""

    def __init__(self, module: nn.Module, identity: Identity) -> None:
        self.module = module.eval().requires_grad_(False)
        self.identity = identity
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> "Frozen":
        self.module.to(device)
        self.device = device
        return self

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> Seen:
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or 0 in images.shape:
            raise ShapeError(
                "not a batch of images", got=(images.shape, str(images.dtype)), expected="(b, h, w, 3) uint8, b >= 1"
            )
        x = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2).to(torch.float32)
        return self.see(x)

    def see(self, x: torch.Tensor) -> Seen:
        """Of images (b, 3, h, w) as float32 0..255."""
        raise NotImplementedError


def extract(network: FeatureNetwork, batches: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Features and, where the network has classes, their probabilities, batch by batch.

    Shapes: batches (b_i, h, w, 3) uint8 -> (n, d) float32, (n, k) float64. Raises: DivergedError, DataError.
    """
    features, probabilities = [], []
    for images in batches:
        seen = network(images)
        features.append(seen.features)
        if seen.probabilities is not None:
            probabilities.append(seen.probabilities.astype(np.float64))
    stacked = np.concatenate(features)
    check_finite(stacked, network.identity.kind)
    return stacked, np.concatenate(probabilities) if probabilities else None


def check_finite(features: np.ndarray, kind: str) -> None:
    """Raises: DivergedError for a network that was trained here, DataError for one from a file."""
    if np.isfinite(features).all():
        return
    what = "the feature network's outputs are not finite"
    got = f"those of {int((~np.isfinite(features)).any(axis=1).sum())} of {len(features)} pictures"
    if kind == "trained":
        raise DivergedError(what, got=got, fix="lower evaluate.train.optimizer.lr, then run again")
    raise DataError(what, got=got, fix="check the weights file; it may be damaged or of half precision")


FLATTERS = "the judge is the encoder that conditions the generator, which flatters its pictures"


def judges_itself(network: FeatureNetwork, encoder: object, *, allowed: bool, fix: str) -> bool:
    """Whether the judge is the conditioning encoder, whose network is `encoder.network`.

    Raises: ConfigError unless it is allowed. `fix`: how it becomes allowed.
    """
    judging, conditioning = getattr(network, "module", None), getattr(encoder, "network", None)
    if judging is None or conditioning is None or not is_same(judging, conditioning):
        return False
    if not allowed:
        expected, way = "another network", f"name another one, or {fix}, and the page says so"
        raise ConfigError(FLATTERS, got=network.identity.model, expected=expected, fix=way)
    return True


def is_same(judging: nn.Module, conditioning: nn.Module) -> bool:
    """Whether both are one network: half of their matrices and kernels, by name, are equal. Heads may differ.

    Vectors do not count: gains and biases that nobody trained are equal in all networks.
    """
    theirs = conditioning.state_dict()
    both = [(mine, theirs[name]) for name, mine in judging.state_dict().items() if mine.ndim > 1 and name in theirs]
    equal = sum(a.shape == b.shape and bool((a.cpu() == b.cpu()).all()) for a, b in both)
    return bool(both) and equal >= len(both) / 2
