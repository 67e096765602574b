"""What every codec is: an image <-> what a pixel generator works on."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from pydantic import TypeAdapter
from torch import Tensor, nn

from components.base import Reader, Writer
from components.codecs.config import CodecConfig, KlConfig, NoneConfig, VqF8Config, VqganConfig
from components.config import Config
from components.documents import validated
from components.errors import ShapeError
from components.nn.groups import in_groups
from components.target import TargetSpec
from components.weights import load_weights, save_weights

_PIXELS = 256**2
"""Image pixels that go through an autoencoder at once on a CPU."""


class Codec(nn.Module, ABC):
    """Frozen image <-> target, the latter in the dtype that the cache stores.

    Raises: ShapeError for images that are not (b, 3, px, px) floats, or targets that do not fit `spec`.
    """

    spec: TargetSpec

    @abstractmethod
    def encode(self, images: Float[Tensor, "b 3 px px"]) -> Tensor:
        """Shapes: (b, 3, px, px) in [0, 1] -> (b, *spec.shape) of spec.dtype."""

    @abstractmethod
    def decode(self, target: Tensor) -> Float[Tensor, "b 3 px px"]:
        """Shapes: (b, *spec.shape) of spec.dtype -> (b, 3, px, px), clamped to [0, 1]."""

    def in_groups(self, call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """call(x) of one of the networks, over groups of images that suit a CPU's cache."""
        return in_groups(call, x, rows=_PIXELS // self.spec.image_px**2)

    def check_images(self, images: Tensor) -> None:
        px = self.spec.image_px
        if images.ndim != 4 or images.shape[1:] != (3, px, px) or not images.is_floating_point():
            got = f"{tuple(images.shape)} {images.dtype}"
            raise ShapeError(
                "images do not fit the codec",
                got=got,
                expected=f"(b, 3, {px}, {px}) floats in [0, 1]",
                fix=f"resize them to {px} px, or import or train a codec with another codec.model.px",
            )

    def check_target(self, target: Tensor) -> None:
        spec = self.spec
        if target.shape[1:] != spec.shape or str(target.dtype) != f"torch.{spec.dtype}":
            got = f"{tuple(target.shape)} {target.dtype}"
            raise ShapeError("target does not fit the codec", got=got, expected=f"(b, {spec.shape}) {spec.dtype}")


_ADAPTER: TypeAdapter[NoneConfig | VqganConfig | KlConfig | VqF8Config] = TypeAdapter(CodecConfig)


def save_codec(config: Config, codec: Codec, out: Writer) -> None:
    """Write config.json and, if the codec has any, weights.safetensors: all that load_codec needs."""
    if codec.state_dict():
        with out.file("weights.safetensors") as path:
            save_weights(path, codec.state_dict())
    out.write_json("config.json", config.model_dump(mode="json"))


def load_codec(artifact: Reader) -> Codec:
    """The codec of a codec artifact, on CPU, frozen, in eval mode. Raises: WeightsError."""
    codec: Codec = validated(_ADAPTER, artifact.read_json("config.json"), f"{artifact.path('config.json')}").build()
    if codec.state_dict():
        load_weights(codec, artifact.path("weights.safetensors"))
    return codec.requires_grad_(False).eval()
