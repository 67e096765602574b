"""Rdm: a diffusion model whose samples are representations.

z: representation, x_t: noisy representation, y: class index, ab: alpha-bar_t. Paper: 2312.03701 (RCG).
"""

from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from components.base import Batch, Generator, Reader, Writer
from components.conditions.ports import Ports
from components.config import Config
from components.diffusion.predict import noised
from components.diffusion.samplers import ancestral, ddim, dpm_solver_2m
from components.diffusion.schedule import ScheduleConfig, alpha_bars, sampler_steps
from components.errors import ConfigError, ShapeError
from components.generators.config import ScheduledConfig
from components.generators.sampling import AnySampling, DiffusionSampling, check_sampling
from components.rdm.denoiser import ResidualMlp
from components.rng import BatchRng, Rng
from components.weights import load_weights, save_weights


class RdmConfig(ScheduledConfig):
    """The representation generator."""

    kind: Literal["residual_mlp"]
    dim: int = Field(ge=2)
    """Dimension of the representations; must be the encoder's."""
    width: int = Field(ge=2, multiple_of=2)
    """Width of the residual blocks (paper: 1536)."""
    depth: int = Field(ge=1)
    """Number of residual blocks (paper: 12)."""
    time_dim: int = Field(ge=1)
    """Width of the time embedding (paper: 256)."""
    class_conditional: bool
    """Condition on the class label; every training image then needs one."""
    context_dim: int = Field(ge=1)
    """Width of the class embedding (paper: 512); read only when class_conditional."""

    @classmethod
    def tiny(cls) -> "RdmConfig":
        return cls(
            kind="residual_mlp", dim=8, width=16, depth=2, time_dim=8, class_conditional=False, context_dim=4,
            schedule=ScheduleConfig.tiny(),
        )  # fmt: skip


class Rdm(Generator):
    """p(z) or p(z | y). The network predicts z from its noisy version.

    Raises: ConfigError for class_conditional without classes.
    Differs: the reference keeps an unused class table in the unconditional model, and samples the class-conditional one
    with averaged network but live class table; here all weights are averaged alike.
    """

    ab: Tensor
    frequencies: Tensor
    makes = "representation"

    @property
    def class_frequencies(self) -> Tensor | None:
        return self.frequencies if self.conditions == ("class",) else None

    def __init__(self, config: RdmConfig, n_classes: int | None) -> None:
        super().__init__()
        if config.class_conditional and not n_classes:
            fix = "label the collection, or set rdm.model.class_conditional: false"
            raise ConfigError("the representation generator is class-conditional, but there are no labels", fix=fix)
        self.config, self.n_classes = config, n_classes
        self.conditions = ("class",) if config.class_conditional else ()
        self.denoiser = ResidualMlp(
            dim=config.dim, width=config.width, depth=config.depth, time_dim=config.time_dim,
            context_dim=config.context_dim if config.class_conditional else None,
        )  # fmt: skip
        self.register_buffer("ab", alpha_bars(config.schedule).float(), persistent=False)
        if config.class_conditional and n_classes:
            self.embedding = nn.Embedding(n_classes, config.context_dim)
            self.register_buffer("frequencies", torch.full((n_classes,), 1.0 / n_classes))

    def fit_frequencies(self, y: Int[Tensor, " n"]) -> None:
        """Remember how often each class occurs in training. Raises: ConfigError when an image has no label."""
        if not self.config.class_conditional:
            return
        if int(y.min()) < 0:
            fix = "label them, or set rdm.model.class_conditional: false"
            raise ConfigError(f"{int((y < 0).sum())} of {len(y)} training images have no label", fix=fix)
        counts = torch.bincount(y.cpu(), minlength=len(self.frequencies)).double()
        self.frequencies.copy_(counts / counts.sum())

    def loss(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        """Mean squared error of the predicted z, over its dimensions.

        Shapes: batch["representation"] (b, dim). The loss of the zero-initialized head is mean(z^2).
        """
        z = batch["representation"]
        if z.ndim != 2 or z.shape[1] != self.config.dim:
            raise ShapeError(
                "representation of the wrong shape", got=tuple(z.shape), expected=f"(b, {self.config.dim})"
            )
        t = rng.integers(self.config.schedule.n_times)
        x_t = noised(z, rng.normal(self.config.dim), self.ab[t][:, None])
        context = self.embedding(batch["class"]) if self.config.class_conditional else None
        guess = self.denoiser(x_t, self.denoiser.time_vectors(t), Ports(vector=context))
        errors: Tensor = (guess - z).square().mean(1)
        return errors

    @torch.no_grad()
    def sample(self, batch: Batch, how: AnySampling, rng: Rng) -> Float[Tensor, "rows dim"]:
        """rng.rows representations; classes absent from the batch are drawn as often as in training.

        Not standardized again, as in the reference.
        """
        check_sampling(how, self.config)
        how = cast(DiffusionSampling, how)
        steps = sampler_steps(self.config.schedule, how.steps, how.spacing)
        times = torch.tensor([step.t for step in steps], device=self.ab.device)
        by_time = {step.t: i for i, step in enumerate(steps)}
        vectors = self.denoiser.time_vectors(times)
        ports = Ports(vector=self._context(batch, rng))

        def denoise(x_t: Tensor, t: int, _: Batch) -> Tensor:
            i = by_time[t]
            x0: Tensor = self.denoiser(x_t, vectors[i : i + 1], ports)
            return x0

        noise = rng.normal(self.config.dim)
        match how.sampler:
            case "ddim":
                return ddim(denoise, noise, batch, steps, eta=how.eta, rng=rng)
            case "ancestral":
                return ancestral(denoise, noise, batch, steps, rng=rng)
            case "dpm_solver_2m":
                return dpm_solver_2m(denoise, noise, batch, steps)

    def _context(self, batch: Batch, rng: Rng) -> Float[Tensor, "rows context"] | None:
        """Embedded classes: those of the batch, else sampled as often as in training."""
        if not self.config.class_conditional:
            return None
        if "class" in batch:
            y = batch["class"]
            if int(y.min()) < 0 or int(y.max()) >= len(self.frequencies):
                raise ShapeError("class index out of range", got=y.tolist(), expected=f"0..{len(self.frequencies) - 1}")
        else:
            edges = self.frequencies.double().cumsum(0)
            y = torch.bucketize(rng.uniform().double() * edges[-1], edges[:-1], right=True)
        embedded: Tensor = self.embedding(y)
        return embedded


class _Saved(Config):
    """config.json of an rdm artifact."""

    model: RdmConfig
    n_classes: int | None


def save_rdm(rdm: Rdm, out: Writer) -> None:
    """Write weights.safetensors and config.json: all that load_rdm needs."""
    with out.file("weights.safetensors") as path:
        save_weights(path, rdm.state_dict())
    out.write_json("config.json", _Saved(model=rdm.config, n_classes=rdm.n_classes).model_dump(mode="json"))


def load_rdm(artifact: Reader) -> Rdm:
    """The trained RDM of an artifact, in eval mode, without gradients."""
    saved = _Saved.model_validate(artifact.read_json("config.json"))
    rdm = Rdm(saved.model, saved.n_classes)
    load_weights(rdm, artifact.path("weights.safetensors"))
    return rdm.eval().requires_grad_(False)
