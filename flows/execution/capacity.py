"""What each training will take of a GPU, from params and settings alone; nothing is read, started or allocated.

Imports torch inside functions: other explanations start without it.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.encoders.config import width_of
from components.errors import RcgError
from components.target import LOW_RES, TargetSpec
from flows.pipeline.params import Params
from flows.settings import WorkerSettings

if TYPE_CHECKING:
    from components.base import Batch
    from components.training.config import TrainConfig
    from components.training.estimate import Estimate
    from components.training.trainable import Trainable

GB = 1e9
_CONTEXT = 0.8 * GB
"""What a CUDA context and its libraries' workspaces take; a guess."""
_CLASSES = tuple(map(str, range(1000)))
"""How many a collection has is known after `collect`; their table is small beside a network."""


@dataclass(frozen=True)
class Capacity:
    """A training on GPUs of a kind; `reason`: why nothing can be told."""

    estimate: "Estimate | None"
    reason: str | None
    steps: int
    how: WorkerSettings

    @property
    def fits(self) -> bool | None:
        """None where it cannot be told, or RCG_GPU_MEMORY_GB is not set."""
        if self.estimate is None or self.how.gpu_memory_gb is None:
            return None
        return self.estimate.total <= self._room

    @property
    def _room(self) -> float:
        return (self.how.gpu_memory_gb or 0.0) * GB - _CONTEXT

    def fix(self) -> str | None:
        """What to set where it does not fit."""
        if self.estimate is None or self.fits is not False:
            return None
        rows = self.estimate.rows_that_fit(self._room)
        if rows > 0:
            return f"set RCG_MICRO_BATCH={2 ** int(math.log2(rows))}"
        if self.estimate.fixed < self._room:
            return "take larger GPUs, or a smaller model" if self.how.recompute else "set RCG_RECOMPUTE=true"
        n = math.ceil(self.estimate.fixed / max(self._room * _SHARE, 1.0))
        if self.how.shard:
            return f"set RCG_WORKERS={n * self.how.workers} or more"
        return f"set RCG_SHARD=true and RCG_WORKERS={n} or more"


_SHARE = 0.7
"""Of a GPU that shards may take, beside activations and the unit that is whole while it computes."""


def capacities(params: Params, how: WorkerSettings, stages: Collection[str]) -> dict[str, Capacity]:
    """Of each of these stages that trains a generator, a guide or the encoder."""
    from components.training.estimate import How, estimate

    wanted = How(how.workers, how.micro_batch, how.shard, how.recompute)
    found = {}
    for stage, build, batch, train in _trainings(params, stages):
        told, reason = None, None
        try:
            told = estimate(build, batch, train, wanted, bf16=train.precision == "bf16")
        except (RcgError, RuntimeError) as error:  # fields that only a finished stage knows, shapes that data decide
            reason = error.what if isinstance(error, RcgError) else f"{error}".splitlines()[0]
        found[stage] = Capacity(told, reason, train.steps, how)
    return found


_Parts = tuple["Callable[[], Trainable]", "Callable[[int], Batch]", "TrainConfig"]
_Training = tuple[str, "Callable[[], Trainable]", "Callable[[int], Batch]", "TrainConfig"]


def _trainings(params: Params, stages: Collection[str]) -> Iterator[_Training]:
    """(stage, builder, batch of n rows, training) of what will be trained."""
    for stage, of_section in _OF_STAGE.items():
        section = getattr(params, stage)
        if stage in stages and section is not None and section.train is not None:
            yield stage, *of_section(section, params)


def _encoder(section: Any, params: Params) -> _Parts:  # noqa: ARG001  (one signature for all)
    import torch

    from components.encoders.contrastive import MoCoV3Trainer

    return (
        lambda: MoCoV3Trainer(section.model, section.contrastive),
        lambda n: {"target": torch.zeros(n, 3, section.px, section.px)},
        section.train,
    )


def _generator(section: Any, params: Params) -> _Parts:
    from components.cache.reader import cache_fields
    from components.training.generator import GeneratorTrainable

    spec, dim, classes = _spec(params), width_of(params.encoder.model), _classes(params)

    def build() -> "Trainable":
        data = section.model.data(cache_fields(dim, spec, classes), spec)
        return GeneratorTrainable(section.model.build(data), section.ema, section.earlier)

    return build, _rows(params), section.train


def _guide(section: Any, params: Params) -> _Parts:
    from components.generators.config import GeneratorData
    from components.guides.training import GuideTrainable

    data = GeneratorData(target=_spec(params), dim=width_of(params.encoder.model), classes=_classes(params))
    return lambda: GuideTrainable(section.model.build(data)), _rows(params), section.train


def _upsampler(section: Any, params: Params) -> _Parts:
    import torch

    from components.generators.upsampling import upsampler_data
    from components.training.generator import GeneratorTrainable

    small = _spec(params)
    channels = small.shape[0] if small.space == "pixels" else 3
    data = upsampler_data(channels, small.image_px, section.px, _classes(params))

    def batch(n: int) -> "Batch":
        low, high = (torch.zeros(n, channels, px, px, dtype=torch.uint8) for px in (small.image_px, section.px))
        return {"target": high, LOW_RES: low, "class": torch.zeros(n, dtype=torch.int64)}

    return lambda: GeneratorTrainable(section.model.build(data), section.ema), batch, section.train


_OF_STAGE: Mapping[str, Callable[[Any, Params], _Parts]] = {
    "encoder": _encoder,
    "rdm": _generator,
    "pixels": _generator,
    "guide": _guide,
    "upsampler": _upsampler,
}


def _rows(params: Params) -> "Callable[[int], Batch]":
    """Batches of what every cache has."""
    import torch

    spec, dim = _spec(params), width_of(params.encoder.model)

    def batch(n: int) -> "Batch":
        target = torch.zeros(n, *spec.shape, dtype=getattr(torch, spec.dtype))
        return {"target": target, "representation": torch.zeros(n, dim), "class": torch.zeros(n, dtype=torch.int64)}

    return batch


def _spec(params: Params) -> TargetSpec:
    """The space that the codec encodes to."""
    from components.training.estimate import without_memory

    with without_memory():
        spec: TargetSpec = params.codec.model.build().spec
    return spec


def _classes(params: Params) -> tuple[str, ...] | None:
    return None if params.collect.labels == "none" else _CLASSES
