"""What a feature network is: bytes of images -> features, and where it has them, spatial features and probabilities."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from components.errors import ShapeError


@dataclass(frozen=True)
class Seen:
    """What a network makes of a batch. All are float32 and finite or the network's fault."""

    features: np.ndarray
    """(b, d)"""
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
