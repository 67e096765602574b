"""What a frozen encoder is: image statistics, resize, a network in eval mode, and one standardized vector per image."""

from typing import Any, Protocol, Self

import torch
from jaxtyping import Float, Int
from pydantic import TypeAdapter
from torch import Tensor, nn

from components.base import Reader
from components.documents import validated
from components.encoders.config import (
    RGB,
    EncoderConfig,
    EncoderModel,
)
from components.encoders.reduction import Reduction
from components.errors import ConfigError, ShapeError
from components.nn.groups import in_groups
from components.weights import load_weights

WEIGHTS_KEY = "encoder.model.weights"
"""Where params.yaml names an encoder's weights file."""
_PIXELS = 8 * 224**2
"""Preprocessed pixels that go through the network at once on a CPU."""


class Encoder(Protocol):
    """Frozen image -> representation with mean 0 and unbiased std 1 over dim, or that along fewer axes.

    Callers pass RGB in [0, 1], any size.

    A row without variance comes out as NaN; constant_rows() finds it, and the caller names the image.
    Raises: ShapeError unless images is (b, 3, h, w) float32.
    """

    input_px: int

    @property
    def dim(self) -> int: ...
    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b dim"]: ...


def preprocess(images: Float[Tensor, "b 3 h w"], *, px: int, mean: RGB, std: RGB) -> Float[Tensor, "b 3 px px"]:
    """Subtract mean, divide by std, then resize: bicubic, without antialias, as the reference does.

    Raises: ShapeError unless images is (b, 3, h, w) float32.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.float32 or 0 in images.shape[2:]:
        raise ShapeError(
            "not a batch of images",
            got=f"{tuple(images.shape)} {images.dtype}",
            expected="(b, 3, h, w) float32 in [0, 1]",
            fix="divide bytes by 255 and put channels first",
        )
    x = (images - images.new_tensor(mean)[:, None, None]) / images.new_tensor(std)[:, None, None]
    if x.shape[-2:] == (px, px) or len(x) == 0:
        return x.reshape(-1, 3, px, px)
    return nn.functional.interpolate(x, (px, px), mode="bicubic", align_corners=False, antialias=False)


def standardize(z: Float[Tensor, "b dim"]) -> Float[Tensor, "b dim"]:
    """Each row minus its mean, over its unbiased standard deviation, without epsilon; a constant row becomes NaN.

    Differs: a constant row is NaN even where rounding would leave it a tiny variance.
    """
    scaled = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True, unbiased=True)
    return scaled.masked_fill(z.amax(1, keepdim=True) == z.amin(1, keepdim=True), torch.nan)


def constant_rows(z: Float[Tensor, "b dim"]) -> Int[Tensor, " k"]:
    """Indices of the representations that are not finite: those whose network output had no variance."""
    return (~torch.isfinite(z).all(1)).nonzero()[:, 0]


class FrozenEncoder(nn.Module):
    """An Encoder around a network. The network's tensors are saved and loaded, and beside them the reduction."""

    def __init__(self, network: nn.Module, *, dim: int, input_px: int, mean: RGB, std: RGB) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.reduction: Reduction | None = None
        self.full_dim, self.input_px, self.mean, self.std = dim, input_px, mean, std
        self.train(False)

    @property
    def dim(self) -> int:
        """Numbers in a representation."""
        return self.full_dim if self.reduction is None else self.reduction.axes.shape[1]

    def represent(self, x: Float[Tensor, "b 3 px px"]) -> Float[Tensor, "b dim"]:
        """The network's output for preprocessed images, not yet standardized."""
        out: Tensor = self.network(x)
        return out

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b dim"]:
        z = self.raw(images)
        z = standardize(z) if len(z) else z
        return z if self.reduction is None else self.reduction(z)

    @torch.no_grad()
    def raw(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b dim"]:
        """Before standardization: for diagnosis only."""
        x = preprocess(images, px=self.input_px, mean=self.mean, std=self.std)
        if len(x) == 0:
            return x.new_empty(0, self.full_dim)
        z = in_groups(self.represent, x, rows=_PIXELS // self.input_px**2)
        if z.shape != (len(images), self.full_dim):
            raise ConfigError(
                "the encoder's network gives vectors of another width",
                got=tuple(z.shape),
                expected=(len(images), self.full_dim),
                fix=f"set encoder.model.dim: {z.shape[-1]}",
            )
        return z

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        return super().train(False)  # frozen: BatchNorm statistics are part of the function


CONFIG, WEIGHTS, REDUCTION = "config.json", "weights.safetensors", "reduction.safetensors"


def load_encoder(artifact: Reader) -> FrozenEncoder:
    """The frozen encoder of an encoder artifact, on CPU. Raises: WeightsError."""
    where = f"{artifact.path(CONFIG)}"
    config: EncoderModel = validated(TypeAdapter(EncoderConfig), artifact.read_json(CONFIG), where)
    encoder = config.build()
    load_weights(encoder.network, artifact.path(WEIGHTS))
    if config.reduce is not None:
        encoder.reduction = Reduction(config.dim, config.reduce.dim)
        load_weights(encoder.reduction, artifact.path(REDUCTION))
    return encoder


def saved_config(config: EncoderModel) -> dict[str, Any]:
    """What config.json holds: the config without the place that its weights came from."""
    return config.model_copy(update={"weights": None}).model_dump(mode="json")
