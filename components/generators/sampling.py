"""Options of sampling, and the one check that a generator can honor them. Imports without torch."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field

from components.config import Config, added
from components.diffusion.schedule import Spacing, check_steps
from components.errors import ConfigError
from components.generators.config import DiffusionConfig, GeneratorConfig


def _ascending(interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    if not 0 <= low < high:
        raise ValueError(f"an interval of noise begins at 0 or above and ends higher; write [{min(low, high):g}, …]")
    return interval


Interval = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""[low, high] of the noise sqrt(1 - ab) / sqrt(ab), low excluded; 1 is as much noise as signal (2404.07724)."""


class GuideOptions(Config):
    """How strongly the pipeline's guide pulls, and where."""

    scale: float = Field(gt=0)
    """s in eps - s sigma_t grad log p(class | x_t), the scale of ADM (1 to 10 there); 1 is the Bayes rule."""
    interval: Interval | None = None
    """[low, high] of the noise sqrt(1 - ab) / sqrt(ab) at which it acts; null: at all."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(scale=1.0, interval=(0.0, 5.0))


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
    RDM, which leaves a little noise (std 0.039 with sqrt_linear); the others end on the data; fast27: GLIDE's 27 times,
    most of them near the data."""
    sections: tuple[int, ...] | None = added(min_length=1)
    """With spacing linspace: how many of the steps fall in each of so many equal parts of the times, the first at the
    data ("10,10,3,2,2" of guided-diffusion); null: one part."""
    temperature: float | None = added(gt=0)
    """Factor of the noise that sampling begins with (0.997 for GLIDE's upsampler); null: 1."""
    eta: float = Field(ge=0, le=1)
    """Noise of ddim: 0 deterministic, 1 ancestral; read by ddim only."""
    guidance: float = Field(ge=0)
    """Classifier-free guidance g in cond + g (cond - uncond); 0 is off. A scale s of the papers is g = s - 1."""
    autoguidance: float | None = added(gt=0)
    """g in strong + g (strong - weak), weak being the weights that `earlier` of the generator's section kept; null: off
    (2406.02507, whose w is g + 1). In place of `guidance`; needs no condition."""
    guidance_interval: Interval | None = added()
    """[low, high] of the noise sqrt(1 - ab) / sqrt(ab) at which guidance and autoguidance act, 1 being as much noise as
    signal; null: at all (2404.07724: weak noise and strong noise are better left alone)."""
    guide: GuideOptions | None = added()
    """Follow the guide of the section `guide` towards a class; null: do not."""
    repaint: int | None = added(ge=1)
    """Times that each step is taken where a part is known (RePaint: 10); null: once. Read when a picture is edited."""
    consistent: bool = Field(default=False, exclude_if=lambda consistent: not consistent)
    """Of an upsampler: the mean of each square of pixels is the small image's pixel (DDNM). Where that is taken with
    noise, it is left alone."""

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


class DirectSampling(Config):
    """How a generator without noise is sampled: its one guess."""

    kind: Literal["direct"]
    guidance: float = Field(ge=0)
    """g in cond + g (cond - uncond); 0 is off."""

    @property
    def steps(self) -> int:
        """Guesses."""
        return 1

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="direct", guidance=0.0)


_RENAMED = {"dit": "diffusion", "adm": "diffusion", "ldm": "diffusion", "mage": "masked"}


def _current(value: Any) -> Any:
    """Raises: ValueError for options as they were written before there were kinds."""
    if isinstance(value, dict) and (kind := value.get("kind")) in _RENAMED:
        raise ValueError(f"sampling kind {kind} is called {_RENAMED[kind]} now; write kind: {_RENAMED[kind]}")
    if isinstance(value, dict) and "kind" not in value and "sampler" in value:
        raise ValueError("sampling options name their kind now; add kind: diffusion and guidance: 0.0")
    return value


AnySampling = DiffusionSampling | MaskedSampling | DirectSampling
Sampling = Annotated[Annotated[AnySampling, Field(discriminator="kind")], BeforeValidator(_current)]


@dataclass(frozen=True)
class Beside:
    """What stands beside a generator to guide it."""

    earlier: bool = False
    """Weights of an earlier state of its training."""
    guide: bool = False
    """A guide that recognizes classes in its noisy samples."""


def check_sampling(sampling: AnySampling, model: GeneratorConfig, beside: Beside = Beside()) -> None:
    """A generator of this config can be sampled with these options.

    Raises: ConfigError for options of the other kind, steps that the spacing cannot honor, guidance without a
    condition that training drops, or with what does not stand beside the generator.
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
        check_steps(model.schedule.n_times, sampling.steps, sampling.spacing, sampling.sections)
        _check_beside(sampling, beside)
        if sampling.consistent and model.condition("low_res") is None:
            raise ConfigError(
                "sampling is to be consistent with a small image, and this generator sees none",
                got="consistent: true",
                fix="set consistent: false; it is an option of the section upsampler",
            )


def sampling_fault(where: str, sampling: AnySampling, model: GeneratorConfig, beside: Beside = Beside()) -> str | None:
    """What check_sampling() has against these options of params.yaml, in one line that names the place."""
    try:
        check_sampling(sampling, model, beside)
    except ConfigError as error:
        facts = [f"{name}: {value}" for name, value in (("got", error.got), ("valid", error.expected)) if value]
        return f"{where}: {error.what} ({'; '.join(facts)}); {error.fix}"
    return None


def refuse_sampling(where: str, sampling: AnySampling, model: GeneratorConfig) -> None:
    """The same for a validator, of a generator with nothing beside it. Raises: ValueError."""
    if fault := sampling_fault(where, sampling, model):
        raise ValueError(fault)


def _check_beside(sampling: DiffusionSampling, beside: Beside) -> None:
    if sampling.autoguidance is not None and sampling.guidance > 0:
        raise ConfigError(
            "guidance and autoguidance push away from two different guesses",
            got=f"guidance: {sampling.guidance}, autoguidance: {sampling.autoguidance}",
            fix="set guidance: 0.0 or autoguidance: null",
        )
    if sampling.autoguidance is not None and not beside.earlier:
        raise ConfigError(
            "autoguidance needs weights of an earlier state of the generator's training, which none has kept here",
            got=f"autoguidance: {sampling.autoguidance}",
            fix="set earlier of the generator's section, e.g. 0.2, and train it; or set autoguidance: null",
        )
    if sampling.guide is not None and not beside.guide:
        raise ConfigError(
            "sampling follows a guide, and there is none of this generator here",
            got=f"guide: {{scale: {sampling.guide.scale:g}}}",
            fix="add a section guide whose model guides this generator (presets/digits-guided.yaml shows one), or set "
            "guide: null",
        )


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
