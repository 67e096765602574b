"""A generator's files: weights.safetensors and config.json, all that a trained one is built from.

Where its training kept an earlier state, that is earlier.safetensors.
"""

from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import TypeAdapter
from torch import Tensor, nn

from components.base import Reader, Writer
from components.config import Config, added
from components.diffusion.network import Network, widened
from components.documents import validated
from components.generators.base import Generator
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.weights import assign, load_weights, read_tensors, save_weights

EARLIER = "earlier.safetensors"
_NET = "net."


class _Saved(Config):
    """config.json."""

    model: dict[str, Any]
    data: GeneratorData
    earlier: bool | None = added()


class Built(Protocol):
    """What was built from a config and the facts of a cache."""

    config: Any
    data: GeneratorData

    def state_dict(self) -> dict[str, Tensor]: ...


def save_generator(generator: Built, out: Writer, *, earlier: Built | None = None) -> None:
    """Write its files. `earlier`: an earlier state of the same generator."""
    with out.file("weights.safetensors") as path:
        save_weights(path, generator.state_dict())
    if earlier is not None:
        with out.file(EARLIER) as path:
            save_weights(path, earlier.state_dict())
    model = generator.config.model_dump(mode="json")
    data = generator.data.model_dump(mode="json", exclude_defaults=True)
    out.write_json("config.json", {"model": model, "data": data} | ({} if earlier is None else {"earlier": True}))


def load_start(generator: Generator, path: Path) -> None:
    """Weights of a finished run to train on from: of the same generator, or one without its last spatial conditions.

    What is new enters by weights of zero, so that training starts from the same function. Raises: WeightsError,
    ShapeError.
    """
    tensors, network = read_tensors(path), getattr(generator, "net", None)
    if isinstance(network, Network) and f"{_NET}{network.input_weight}" in tensors:
        trained = {network.input_weight: tensors[f"{_NET}{network.input_weight}"]}
        tensors = {**tensors, **{f"{_NET}{name}": t for name, t in widened(trained, network).items()}}
    assign(generator, tensors, source=str(path))


def load_generator(artifact: Reader, models: Any) -> Generator:
    """The trained generator of an artifact, in eval mode, without gradients, and its earlier state beside it.

    `models`: the union of its configs.
    """
    module, earlier = load_built(artifact, models)
    generator = cast(Generator, module)
    if earlier is not None and isinstance(generator, Diffusion):
        generator.earlier = cast(Diffusion, earlier)
    return generator


def load_built(artifact: Reader, models: Any) -> tuple[nn.Module, nn.Module | None]:
    """What save_generator() wrote of any of these configs, and its earlier state."""
    where = f"{artifact.path('config.json')}"
    saved = validated(_Saved, artifact.read_json("config.json"), where)
    model: Any = validated(TypeAdapter(models), saved.model, where)

    def load(name: str) -> nn.Module:
        module: nn.Module = model.build(saved.data)
        load_weights(module, artifact.path(name))
        return module.eval().requires_grad_(False)

    return load("weights.safetensors"), load(EARLIER) if saved.earlier else None
