"""Pixel generators. To add one: a module here and one member in the union below, which is the registry."""

from typing import Annotated

from pydantic import Field

from components.base import Reader, Writer
from components.config import Config
from components.pixels.adm import AdmConfig
from components.pixels.base import PixelData, PixelGenerator
from components.pixels.dit import DitConfig
from components.pixels.ldm import LdmConfig
from components.pixels.mage import MageConfig
from components.weights import load_weights, save_weights

PixelConfig = Annotated[DitConfig | AdmConfig | LdmConfig | MageConfig, Field(discriminator="kind")]

__all__ = ["PixelConfig", "PixelData", "PixelGenerator", "load_pixels", "save_pixels"]


class _Saved(Config):
    """config.json of a pixels artifact."""

    model: PixelConfig
    data: PixelData


def save_pixels(model: PixelConfig, generator: PixelGenerator, out: Writer) -> None:
    """Write weights.safetensors and config.json: all that load_pixels needs."""
    with out.file("weights.safetensors") as path:
        save_weights(path, generator.state_dict())
    out.write_json("config.json", _Saved(model=model, data=generator.data).model_dump(mode="json"))


def load_pixels(artifact: Reader) -> PixelGenerator:
    """The trained pixel generator of an artifact, in eval mode, without gradients."""
    saved = _Saved.model_validate(artifact.read_json("config.json"))
    generator = saved.model.build(saved.data)
    load_weights(generator, artifact.path("weights.safetensors"))
    return generator.eval().requires_grad_(False)
