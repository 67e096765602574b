"""What every guide is: a network that reads noisy samples, and what it is held against. Paper: 2105.05233, sec. 4.

x0: clean sample, x_t: noisy one, y: what is recognized, ab: alpha-bar_t.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from components.base import Batch
from components.conditions.ports import Ports
from components.diffusion.guidance import Guide
from components.diffusion.network import Network
from components.diffusion.process import Process
from components.errors import ConfigError
from components.generators.base import Generator, TrainingRows
from components.generators.config import DiffusionConfig, GeneratorData
from components.generators.diffusion import Diffusion
from components.generators.scale import channel_scale
from components.rng import BatchRng
from components.target import EventSpec

_SCALE_SLACK = 0.05
"""Differences between two scales of latents that come of other training rows of one collection, in stds."""


class NoiseAware(Guide):
    """Trained at uniform times; `clean`: without any noise, to compare with.

    Where `input` is scaled, the network reads sqrt(ab) x_t, the best linear guess of an x0 of unit variance. So its
    gradient in x_t fades with the signal, as the true one does, and a step from pure noise, which multiplies it by
    1 / sqrt(ab), stays bounded. Differs: ADM's classifiers read x_t; their schedules end where ab is 4e-5, but for the
    cosine at 64 pixels, which ends at 2e-9.
    """

    by_row: ClassVar[bool] = True
    """Whether the loss of a row depends on no other row of the batch."""
    metric: ClassVar[str]
    """Name of what score() is on average."""
    mean: Tensor
    std: Tensor

    def __init__(
        self, config: Any, data: GeneratorData, *, spec: EventSpec, network: Network, standardize: bool
    ) -> None:
        super().__init__()
        self.config, self.data, self.spec, self.standardize = config, data, spec, standardize
        self.net, self.process, self.clean = network, Process(config.schedule), False
        per_channel = (spec.shape[0], *[1] * (len(spec.shape) - 1))
        self.register_buffer("mean", torch.zeros(per_channel))
        self.register_buffer("std", torch.ones(per_channel))

    @property
    def reads(self) -> str:
        """Field of the batch that it sees noised, besides what it recognizes."""
        return "representation" if self.spec.space == "representations" else "target"

    def fit(self, rows: TrainingRows, labels: Int[Tensor, " n"] | None) -> None:  # noqa: ARG002
        """Read off the training rows what no gradient learns."""
        if self.standardize:
            mean, std = channel_scale(rows, self.reads, self.spec)
            self.mean.copy_(mean)
            self.std.copy_(std)

    def forward(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        """The loss of each row, its time and noise sampled."""
        x0 = self.clean_rows(batch)
        t = rng.integers(self.config.schedule.n_times)
        x_t = x0 if self.clean else self.process.noised(x0, t, rng.normal(*x0.shape[1:]))
        return self.losses(x_t, t, batch[self.field])

    def clean_rows(self, batch: Batch) -> Float[Tensor, "b ..."]:
        """x0 as the generator's network sees it."""
        return (self.spec.as_float(batch[self.reads]) - self.mean) / self.std

    def output(self, x_t: Float[Tensor, "b ..."], t: Int[Tensor, " n"]) -> Float[Tensor, "b out"]:
        """Of one time for all rows, n = 1, or one each. A clean guide takes x_t for clean."""
        if self.clean:
            out: Tensor = self.net(x_t, self.net.time_vectors(torch.zeros_like(t)), Ports())
        else:
            seen = self.process.alpha_bar(t, x_t).sqrt() * x_t if self.config.input == "scaled" else x_t
            out = self.net(seen, self.net.time_vectors(t), Ports())
        return out

    @abstractmethod
    def losses(self, x_t: Float[Tensor, "b ..."], t: Int[Tensor, " b"], y: Tensor) -> Float[Tensor, " b"]:
        """-log p(y | x_t) of each row, up to a constant."""

    @abstractmethod
    def score(self, x_t: Float[Tensor, "b ..."], t: Int[Tensor, " b"], y: Tensor) -> Float[Tensor, " b"]:
        """How well each row is recognized, 1 being best."""

    @abstractmethod
    def chance(self, y: Tensor) -> float:
        """What score() is on average without looking at the rows."""


def put_beside(guide: NoiseAware, generator: Generator) -> None:
    """Let the generator be guided.

    Raises: ConfigError for a generator that is no diffusion, and a guide of another size, schedule, scale or classes.
    """
    if not isinstance(generator, Diffusion):
        raise ConfigError(
            "a guide leads a diffusion generator, step by step through noise; this one samples tokens",
            got=f"kind: {getattr(generator.config, 'kind', generator.config.sampled_by)}",
            fix="sample without a guide, or condition the generator on the class",
        )
    config: DiffusionConfig = generator.config
    pairs = {
        "space": (guide.spec.space, generator.spec.space),
        "size": (guide.spec.shape, generator.spec.shape),
        "schedule": (guide.config.schedule, config.schedule),
        "end of the process": (False, generator.process.base.has_components),
        "classes": (guide.data.classes, generator.data.classes) if guide.field == "class" else (None, None),
    }
    for name, (mine, its) in pairs.items():
        if mine != its:
            raise ConfigError(
                f"the guide was trained for a generator of another {name}",
                got=mine,
                expected=its,
                fix="train the guide on the same cache, with the schedule of the generator",
            )
    std = generator.std
    if ((guide.mean - generator.mean).abs() > _SCALE_SLACK * std).any() or (
        (guide.std / std - 1).abs() > _SCALE_SLACK
    ).any():
        raise ConfigError(
            "the guide was trained on latents of another scale",
            got=f"std {guide.std.flatten().tolist()}",
            expected=f"std {std.flatten().tolist()}",
            fix="set guide.model.latents as pixels.model.latents, and train it on the same cache",
        )
    generator.guide = guide
