"""Diffusion over events of any shape: representations, pixels, latents; with any network of components.diffusion.

x0: clean sample, x_t: noisy one, eps: noise, ab: alpha-bar_t; pixels live in [-1, 1], latents may be standardized.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from components.base import Batch
from components.conditions.container import Conditions
from components.conditions.ports import Ports
from components.diffusion.guidance import Guide, autoguided, clamped, classifier_free, guided_by, known, times_within
from components.diffusion.network import Network
from components.diffusion.predict import min_snr_weight, target_of, v_weight, x0_from
from components.diffusion.process import Process, Step
from components.diffusion.samplers import Denoised, Denoiser, ancestral, ddim, dpm_solver_2m, repainted
from components.diffusion.variational import Posterior, bound_bits
from components.errors import ConfigError
from components.generators.base import Generator, TrainingRows
from components.generators.config import DiffusionConfig, GeneratorData
from components.generators.known import known_part
from components.generators.sampling import AnySampling, Beside, DiffusionSampling, GuideOptions, check_sampling
from components.rng import BatchRng, Repeated, Rng
from components.spacing import evenly_spaced
from components.target import EventSpec

_BOUND_WEIGHT = 0.001
_N_SCALE_ROWS = 1024
"""Training rows, evenly spaced, that the scale of latents is read off."""


class Diffusion(Generator):
    """p(x0 | conditions) by diffusion. `standardize`: the network sees x0 with mean 0 and std 1 per channel."""

    config: DiffusionConfig
    mean: Tensor
    std: Tensor
    earlier: "Diffusion | None"
    """Beside it, where its training kept it: itself at an earlier step, for autoguidance."""
    guide: Guide | None
    """Beside it, where there is one."""

    def __init__(
        self,
        config: DiffusionConfig,
        data: GeneratorData,
        *,
        spec: EventSpec,
        network: Network,
        conditions: Conditions,
        standardize: bool = False,
    ) -> None:
        super().__init__(config, data, spec=spec)
        self.net, self.conditioner, self.standardize = network, conditions, standardize
        self.process = Process(config.schedule)
        self.posterior = Posterior(config.schedule) if config.variance == "learned" else None
        per_channel = (spec.shape[0], *[1] * (len(spec.shape) - 1))
        self.register_buffer("mean", torch.zeros(per_channel))
        self.register_buffer("std", torch.ones(per_channel))
        self.earlier = self.guide = None

    def fit(self, rows: TrainingRows, seed: int, *, trained: bool = False) -> None:
        super().fit(rows, seed, trained=trained)
        if self.standardize and not trained:
            index = evenly_spaced(len(rows), _N_SCALE_ROWS)
            x = self.spec.as_float(rows.field(self.makes, index)).double()
            over = tuple(axis for axis in range(x.ndim) if axis != 1)
            self.mean.copy_(x.mean(over).view_as(self.mean))
            self.std.copy_(x.std(over).clamp(min=1e-6).view_as(self.std))

    def loss(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        """Mean squared error of the prediction, over the elements; weighted as v or by min-SNR if configured.

        A learned variance adds the variational bound of the sampled time. Paper: 2102.09672, eq. 16, lambda 0.001.
        """
        x0 = self._scaled(self.checked(batch))
        ports = self.conditioner.training_ports(batch, rng)
        T, kind = self.config.schedule.n_times, self.config.prediction
        t = rng.integers(T)
        ab = self.process.alpha_bar(t, x0)
        eps = rng.normal(*x0.shape[1:])
        x_t = self.process.noised(x0, t, eps)
        predicted, f = self._split(self.net(x_t, self.net.time_vectors(t), ports))
        errors: Tensor = (predicted - target_of(kind, x0, eps, ab)).square().flatten(1).mean(1)
        if self.config.min_snr is not None:
            errors = errors * min_snr_weight(kind, self.process.ab[t], self.config.min_snr)
        if self.config.weighting == "v":
            errors = errors * v_weight(kind, self.process.ab[t])
        if self.posterior is None or f is None:
            return errors
        guess = x0_from(kind, x_t, predicted.detach(), ab)
        return errors + T * _BOUND_WEIGHT * bound_bits(self.posterior, x0, x_t, guess, f.float(), t)

    @torch.no_grad()
    def sample(self, batch: Batch, sampling: AnySampling, rng: Rng) -> Tensor:
        check_sampling(sampling, self.config, Beside(self.earlier is not None, self.guide is not None))
        options = cast(DiffusionSampling, sampling)
        steps = self.process.steps(options.steps, options.spacing)
        denoise, ports = self._conditional(steps, options, batch, rng)
        if self.spec.space == "pixels":
            denoise = clamped(denoise, -1.0, 1.0)
        if options.guide is not None:
            denoise = self._followed(denoise, steps, options.guide, batch)
        given = known_part(batch, self.spec)
        if given is not None:
            denoise = known(denoise, self._scaled(given.target), given.where)

        def walk(x_t: Tensor, some: Sequence[Step]) -> Tensor:
            match options.sampler:
                case "ddim":
                    return ddim(denoise, x_t, ports, some, eta=options.eta, rng=rng)
                case "ancestral":
                    return ancestral(denoise, x_t, ports, some, rng=rng)
                case "dpm_solver_2m":
                    return dpm_solver_2m(denoise, x_t, ports, some)

        x_T, times = self.process.base.sample(rng, self.spec.shape), options.repaint or 1
        x = self._stored(repainted(walk, x_T, steps, times=1 if given is None else times, rng=rng))
        return x if given is None else torch.where(given.where, given.target, x)

    def _conditional(
        self, steps: tuple[Step, ...], options: DiffusionSampling, batch: Batch, rng: Rng
    ) -> tuple[Denoiser, Ports]:
        """The denoiser with what guides it away from weaker guesses, and the ports that it takes."""
        at, repeated = times_within(steps, options.guidance_interval), Repeated(rng)
        ports, null = self.conditioner.sampling_ports(batch, repeated)
        denoise = self.denoiser(steps)
        if options.guidance > 0:
            return classifier_free(denoise, options.guidance, at), self.net.prepare(ports.beside(null))
        if options.autoguidance is not None and self.earlier is not None:
            weak, (weak_ports, _) = (
                self.earlier.denoiser(steps),
                self.earlier.conditioner.sampling_ports(batch, repeated.again()),
            )
            weak_ports = self.earlier.net.prepare(weak_ports)
            denoise = autoguided(denoise, lambda x_t, t: weak(x_t, t, weak_ports), options.autoguidance, at)
        return denoise, self.net.prepare(ports)

    def _followed(self, denoise: Denoiser, steps: tuple[Step, ...], options: GuideOptions, batch: Batch) -> Denoiser:
        """The denoiser guided to the classes of the batch. Raises: ConfigError without them."""
        guide, y = self.guide, batch.get("class")
        if guide is None or y is None:
            raise ConfigError("a guide needs the class to guide to", fix="name a class")

        def log_likelihood(x_t: Tensor, t: int) -> Tensor:
            return guide.log_likelihood(x_t, t, y)

        at = times_within(steps, options.interval)
        return guided_by(denoise, log_likelihood, options.scale, {step.t: step.ab for step in steps}, at)

    def denoiser(self, steps: tuple[Step, ...]) -> Denoiser:
        """The network for the times of these steps; what depends on the time alone is computed once."""
        vectors = self.net.time_vectors(torch.tensor([step.t for step in steps], device=self.mean.device))
        places = {step.t: i for i, step in enumerate(steps)}

        def denoise(x_t: Tensor, t: int, ports: Ports) -> Denoised:
            i = places[t]
            predicted, f = self._split(self.net(x_t, vectors[i : i + 1], ports))
            x0 = x0_from(self.config.prediction, x_t, predicted, self.process.ab[t])
            return Denoised(x0, None if f is None else steps[i].log_variance(f))

        return denoise

    def _split(self, out: Tensor) -> tuple[Tensor, Tensor | None]:
        """The network's output as prediction and, where it is learned, the variance's place f between its bounds."""
        if self.posterior is None:
            return out, None
        predicted, v = out.chunk(2, dim=1)
        return predicted, (v + 1) / 2

    def _scaled(self, target: Tensor) -> Tensor:
        """What the network sees of a stored target."""
        return (self.spec.as_float(target) - self.mean) / self.std

    def _stored(self, x: Tensor) -> Tensor:
        if self.spec.space == "pixels":
            return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return (x * self.std + self.mean).to(getattr(torch, self.spec.dtype))
