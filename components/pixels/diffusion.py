"""Diffusion over pixels or latents: loss and sampling for any network that maps (x_t, time, condition) to a prediction.

x0: clean target, x_t: noisy target, eps: noise, ab: alpha-bar_t; pixels live in [-1, 1], latents are standardized.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from components.base import Batch
from components.conditions.ports import Ports
from components.diffusion.guidance import clamped, classifier_free
from components.diffusion.network import Network
from components.diffusion.predict import min_snr_weight, noised, target_of, x0_from
from components.diffusion.samplers import Denoiser, ancestral, ddim, dpm_solver_2m
from components.diffusion.schedule import Step, alpha_bars, sampler_steps
from components.diffusion.variational import Posterior, bound_bits
from components.errors import ShapeError
from components.generators.config import DiffusionConfig
from components.generators.sampling import AnySampling, DiffusionSampling, check_sampling
from components.pixels.base import PixelData, PixelGenerator
from components.pixels.condition import ConditionConfig, Conditioner
from components.rng import BatchRng, Rng

_BOUND_WEIGHT = 0.001


class DiffusionGenerator(PixelGenerator):
    """p(target | condition) by diffusion. Raises: ConfigError for a target of tokens."""

    config: DiffusionConfig
    ab: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self, config: DiffusionConfig, data: PixelData, *, condition: ConditionConfig, network: Network, width: int,
        project: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config, self.data, self.net = config, data, network
        n_classes = len(data.classes) if data.classes else None
        self.conditioner = Conditioner(condition, width=width, dim=data.dim, n_classes=n_classes, project=project)
        self.conditions = self.conditioner.conditions
        self.posterior = Posterior(config.schedule) if config.variance == "learned" else None
        self.register_buffer("ab", alpha_bars(config.schedule).float(), persistent=False)
        channels = data.target.shape[0]
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    def fit_target(self, target: Tensor) -> None:
        """Latents are standardized per channel by the statistics of these training rows; pixels stay in [-1, 1]."""
        if self.data.target.space == "latents" and self.config.latents == "standardized":
            x = self.data.target.as_float(target).double()
            self.mean.copy_(x.mean((0, 2, 3))[:, None, None])
            self.std.copy_(x.std((0, 2, 3)).clamp(min=1e-6)[:, None, None])

    def loss(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        """Mean squared error of the prediction, over the target's elements; min-SNR weighted if configured.

        A learned variance adds the variational bound of the drawn time. Paper: 2102.09672, eq. 16, lambda 0.001.
        """
        target = batch["target"]
        if tuple(target.shape[1:]) != self.data.target.shape:
            raise ShapeError("target of the wrong shape", got=tuple(target.shape[1:]), expected=self.data.target.shape)
        x0 = (self.data.target.as_float(target) - self.mean) / self.std
        condition = self.conditioner(batch, rng)
        T, kind = self.config.schedule.n_times, self.config.prediction
        t = rng.integers(T)
        ab = self.ab[t].reshape(-1, 1, 1, 1)
        eps = rng.normal(*x0.shape[1:])
        x_t = noised(x0, eps, ab)
        predicted, spread = self.split(self.net(x_t, self.net.time_vectors(t), Ports(vector=condition)))
        errors: Tensor = (predicted - target_of(kind, x0, eps, ab)).square().flatten(1).mean(1)
        if self.config.min_snr is not None:
            errors = errors * min_snr_weight(kind, self.ab[t], self.config.min_snr)
        if self.posterior is None or spread is None:
            return errors
        guess = x0_from(kind, x_t, predicted.detach(), ab)
        return errors + T * _BOUND_WEIGHT * bound_bits(self.posterior, x0, x_t, guess, spread.float(), t)

    def split(self, out: Tensor) -> tuple[Tensor, Tensor | None]:
        """The network's output as prediction and, where it is learned, the variance's place f between its bounds."""
        if self.posterior is None:
            return out, None
        predicted, v = out.chunk(2, dim=1)
        return predicted, (v + 1) / 2

    def sample(self, batch: Batch, how: AnySampling, rng: Rng) -> Tensor:
        check_sampling(how, self.config)
        return self._sample(batch, cast(DiffusionSampling, how), rng)

    @torch.no_grad()
    def _sample(self, batch: Batch, how: DiffusionSampling, rng: Rng) -> Tensor:
        steps = sampler_steps(self.config.schedule, how.steps, how.spacing)
        bare = self._denoiser(steps)
        denoise: Denoiser = bare
        told: Batch = {"condition": self.conditioner.for_sampling(batch, rng)}
        if how.guidance > 0:
            denoise = classifier_free(denoise, how.guidance, {"condition": self.conditioner.null_for(rng.rows)})
        if self.data.target.space == "pixels":
            denoise = clamped(denoise, -1.0, 1.0)
        x = rng.normal(*self.data.target.shape)
        match how.sampler:
            case "ddim":
                x = ddim(denoise, x, told, steps, eta=how.eta, rng=rng)
            case "ancestral":
                spread = None if self.posterior is None else (lambda: bare.spread[: rng.rows])
                x = ancestral(denoise, x, told, steps, rng=rng, spread=spread)
            case "dpm_solver_2m":
                x = dpm_solver_2m(denoise, x, told, steps)
        return self._stored(x)

    def _denoiser(self, steps: tuple[Step, ...]) -> "_Denoise":
        times = torch.tensor([step.t for step in steps], device=self.ab.device)
        return _Denoise(self, {step.t: i for i, step in enumerate(steps)}, self.net.time_vectors(times))

    def _stored(self, x: Tensor) -> Tensor:
        spec = self.data.target
        if spec.space == "pixels":
            return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return (x * self.std + self.mean).to(getattr(torch, spec.dtype))


class _Denoise:
    """(x_t, t, conditions) -> x0 with the time vectors and alpha-bars of one sampler call."""

    def __init__(self, generator: DiffusionGenerator, rows: dict[int, int], vectors: Tensor) -> None:
        self.generator, self.rows, self.vectors = generator, rows, vectors
        self.spread = torch.empty(0)
        """f of the last call, where the variance is learned; under guidance the first half are the conditional rows."""

    def __call__(self, x_t: Tensor, t: int, batch: Batch) -> Tensor:
        i = self.rows[t]
        out = self.generator.net(x_t, self.vectors[i : i + 1], Ports(vector=batch["condition"]))
        predicted, spread = self.generator.split(out)
        self.spread = self.spread if spread is None else spread
        return x0_from(self.generator.config.prediction, x_t, predicted, self.generator.ab[t])
