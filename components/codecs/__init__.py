"""Codecs: images <-> the targets of a pixel generator. To add one: its module here, and one member of the union."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field, TypeAdapter

from components.base import Config
from components.codecs.base import Codec, CodecModel
from components.codecs.none import NoneConfig
from components.codecs.vqgan import VqganConfig
from components.weights import load_weights, save_weights

__all__ = ["Codec", "CodecConfig", "CodecModel", "load_codec", "save_codec"]

CodecConfig = Annotated[NoneConfig | VqganConfig, Field(discriminator="kind")]

_ADAPTER: TypeAdapter[NoneConfig | VqganConfig] = TypeAdapter(CodecConfig)


class _Reader(Protocol):
    def path(self, name: str) -> Path: ...
    def read_json(self, name: str) -> Any: ...


class _Writer(Protocol):
    def file(self, name: str) -> AbstractContextManager[Path]: ...
    def write_json(self, name: str, value: Any) -> None: ...


def save_codec(config: Config, codec: Codec, out: _Writer) -> None:
    """Write config.json and, if the codec has any, weights.safetensors: all that load_codec needs."""
    if codec.state_dict():
        with out.file("weights.safetensors") as path:
            save_weights(path, codec.state_dict())
    out.write_json("config.json", config.model_dump(mode="json"))


def load_codec(artifact: _Reader) -> Codec:
    """The codec of a codec artifact, on CPU, frozen, in eval mode. Raises: WeightsError."""
    codec: Codec = _ADAPTER.validate_python(artifact.read_json("config.json")).build()
    if codec.state_dict():
        load_weights(codec, artifact.path("weights.safetensors"))
    return codec.requires_grad_(False).eval()
