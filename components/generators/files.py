"""A generator's files: weights.safetensors and config.json, all that a trained one is built from.

Where its training kept an earlier state, that is earlier.safetensors.
"""

from typing import Any, cast

from pydantic import TypeAdapter

from components.base import Reader, Writer
from components.config import Config, added
from components.documents import validated
from components.generators.base import Generator
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.weights import load_weights, save_weights

EARLIER = "earlier.safetensors"


class _Saved(Config):
    """config.json."""

    model: dict[str, Any]
    data: GeneratorData
    earlier: bool | None = added()


def save_generator(generator: Generator, out: Writer, *, earlier: Generator | None = None) -> None:
    """Write its files. `earlier`: an earlier state of the same generator."""
    with out.file("weights.safetensors") as path:
        save_weights(path, generator.state_dict())
    if earlier is not None:
        with out.file(EARLIER) as path:
            save_weights(path, earlier.state_dict())
    model = generator.config.model_dump(mode="json")
    data = generator.data.model_dump(mode="json", exclude_defaults=True)
    out.write_json("config.json", {"model": model, "data": data} | ({} if earlier is None else {"earlier": True}))


def load_generator(artifact: Reader, models: Any) -> Generator:
    """The trained generator of an artifact, in eval mode, without gradients, and its earlier state beside it.

    `models`: the union of its configs.
    """
    where = f"{artifact.path('config.json')}"
    saved = validated(_Saved, artifact.read_json("config.json"), where)
    model: Any = validated(TypeAdapter(models), saved.model, where)
    generator = cast(Generator, model.build(saved.data))
    load_weights(generator, artifact.path("weights.safetensors"))
    if saved.earlier and isinstance(generator, Diffusion):
        earlier = cast(Diffusion, model.build(saved.data))
        load_weights(earlier, artifact.path(EARLIER))
        generator.earlier = earlier
    return generator.eval().requires_grad_(False)
