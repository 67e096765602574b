"""Options of sampling, and the one check that a generator can honor them. Imports without torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field

from components.config import Config
from components.diffusion.schedule import Spacing, check_steps
from components.errors import ConfigError
from components.generators.config import DiffusionConfig, GeneratorConfig


class DiffusionSampling(Config):
    """How a diffusion model is sampled, whatever it makes."""

    kind: Literal["diffusion"]
    sampler: Literal["ddim", "ancestral", "dpm_solver_2m"]
    """ddim: any number of steps; ancestral: DDPM; dpm_solver_2m: deterministic, good from 10 to 25 steps."""
    steps: int = Field(ge=1)
    """Denoising steps, of those that the spacing can honor."""
    spacing: Spacing
    """Which times are visited. trailing: even strides from the last time down; linspace: first and last included
    ("250" of DiT and ADM); leading: even strides from time 0 up ("ddim25" there); reference: that of LDM and of RCG's
    RDM, which leaves a little noise (std 0.039 with sqrt_linear); the others end on the data."""
    eta: float = Field(ge=0, le=1)
    """Noise of ddim: 0 deterministic, 1 ancestral; read by ddim only."""
    guidance: float = Field(ge=0)
    """Classifier-free guidance g in cond + g (cond - uncond); 0 is off. A scale s of the papers is g = s - 1."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="diffusion", sampler="ddim", steps=4, spacing="trailing", eta=0.0, guidance=0.0)


class MaskedSampling(Config):
    """How a masked transformer is sampled: iterative decoding, from all masked to none."""

    kind: Literal["masked"]
    steps: int = Field(ge=1)
    """Iterations; the share of masked tokens falls by a cosine."""
    temperature: float = Field(ge=0)
    """Scale of the Gumbel noise that decides which tokens stay; falls linearly to 0."""
    guidance: float = Field(ge=0)
    """g in cond + g (cond - uncond) at the last iteration, rising linearly to it; 0 is off."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="masked", steps=2, temperature=1.0, guidance=0.0)


_RENAMED = {"dit": "diffusion", "adm": "diffusion", "ldm": "diffusion", "mage": "masked"}


def _current(value: Any) -> Any:
    """Raises: ValueError for options as they were written before there were two kinds."""
    if isinstance(value, dict) and (kind := value.get("kind")) in _RENAMED:
        raise ValueError(f"sampling kind {kind} is called {_RENAMED[kind]} now; write kind: {_RENAMED[kind]}")
    if isinstance(value, dict) and "kind" not in value and "sampler" in value:
        raise ValueError("sampling options name their kind now; add kind: diffusion and guidance: 0.0")
    return value


AnySampling = DiffusionSampling | MaskedSampling
Sampling = Annotated[Annotated[AnySampling, Field(discriminator="kind")], BeforeValidator(_current)]


def check_sampling(sampling: AnySampling, model: GeneratorConfig) -> None:
    """A generator of this config can be sampled with these options.

    Raises: ConfigError for options of the other kind, steps that the spacing cannot honor, or guidance without a
    condition that training drops.
    """
    if sampling.kind != model.sampled_by:
        raise ConfigError(
            "the sampling options are of another kind than the generator",
            got=f"kind: {sampling.kind}",
            expected=f"kind: {model.sampled_by}, as for every {model.sampled_by} generator",
            fix=f"set kind: {model.sampled_by}",
        )
    if sampling.guidance > 0:
        _check_guidance(sampling.guidance, model)
    if isinstance(sampling, DiffusionSampling) and isinstance(model, DiffusionConfig):
        check_steps(model.schedule.n_times, sampling.steps, sampling.spacing)


def sampling_fault(where: str, sampling: AnySampling, model: GeneratorConfig) -> str | None:
    """What check_sampling() has against these options of params.yaml, in one line that names the place."""
    try:
        check_sampling(sampling, model)
    except ConfigError as error:
        facts = [f"{name}: {value}" for name, value in (("got", error.got), ("valid", error.expected)) if value]
        return f"{where}: {error.what} ({'; '.join(facts)}); {error.fix}"
    return None


def refuse_sampling(where: str, sampling: AnySampling, model: GeneratorConfig) -> None:
    """The same for a validator. Raises: ValueError."""
    if fault := sampling_fault(where, sampling, model):
        raise ValueError(fault)


def _check_guidance(guidance: float, model: GeneratorConfig) -> None:
    if not model.conditions:
        raise ConfigError(
            "guidance needs a condition, and the generator has none",
            got=f"guidance: {guidance}",
            fix="set guidance: 0, or train the generator with a condition",
        )
    if not model.can_guide:
        raise ConfigError(
            "guidance needs a generator that was trained with dropout of its condition",
            got=f"guidance: {guidance} with drop_prob: 0",
            fix="set guidance: 0, or train with drop_prob above 0, e.g. 0.1",
        )
