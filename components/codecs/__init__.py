"""Codecs: images <-> the targets of a pixel generator. To add one: its module here, and one member of the union."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from components.base import Reader, Writer
from components.codecs.base import Codec, CodecModel
from components.codecs.kl import KlConfig
from components.codecs.none import NoneConfig
from components.codecs.vq_f8 import VqF8Config
from components.codecs.vqgan import VqganConfig
from components.config import Config
from components.weights import load_weights, save_weights

__all__ = ["Codec", "CodecConfig", "CodecModel", "load_codec", "save_codec"]

CodecConfig = Annotated[NoneConfig | VqganConfig | KlConfig | VqF8Config, Field(discriminator="kind")]

_ADAPTER: TypeAdapter[NoneConfig | VqganConfig | KlConfig | VqF8Config] = TypeAdapter(CodecConfig)


def save_codec(config: Config, codec: Codec, out: Writer) -> None:
    """Write config.json and, if the codec has any, weights.safetensors: all that load_codec needs."""
    if codec.state_dict():
        with out.file("weights.safetensors") as path:
            save_weights(path, codec.state_dict())
    out.write_json("config.json", config.model_dump(mode="json"))


def load_codec(artifact: Reader) -> Codec:
    """The codec of a codec artifact, on CPU, frozen, in eval mode. Raises: WeightsError."""
    codec: Codec = _ADAPTER.validate_python(artifact.read_json("config.json")).build()
    if codec.state_dict():
        load_weights(codec, artifact.path("weights.safetensors"))
    return codec.requires_grad_(False).eval()
