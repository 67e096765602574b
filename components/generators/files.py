"""A generator's files: weights.safetensors and config.json, all that a trained one is built from."""

from typing import Any, cast

from pydantic import TypeAdapter

from components.base import Reader, Writer
from components.config import Config
from components.documents import validated
from components.generators.base import Generator
from components.generators.config import GeneratorData
from components.weights import load_weights, save_weights


class _Saved(Config):
    """config.json."""

    model: dict[str, Any]
    data: GeneratorData


def save_generator(generator: Generator, out: Writer) -> None:
    """Write the two files."""
    with out.file("weights.safetensors") as path:
        save_weights(path, generator.state_dict())
    model = generator.config.model_dump(mode="json")
    data = generator.data.model_dump(mode="json", exclude_defaults=True)
    out.write_json("config.json", {"model": model, "data": data})


def load_generator(artifact: Reader, models: Any) -> Generator:
    """The trained generator of an artifact, in eval mode, without gradients. `models`: the union of its configs."""
    where = f"{artifact.path('config.json')}"
    saved = validated(_Saved, artifact.read_json("config.json"), where)
    model: Any = validated(TypeAdapter(models), saved.model, where)
    generator = cast(Generator, model.build(saved.data))
    load_weights(generator, artifact.path("weights.safetensors"))
    return generator.eval().requires_grad_(False)
