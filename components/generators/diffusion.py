"""Diffusion over events of any shape: representations, pixels, latents; with any network of components.diffusion.

x0: clean sample, x_t: noisy one, eps: noise, ab: alpha-bar_t; pixels live in [-1, 1], latents may be standardized.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from components.base import Batch
from components.conditions.container import Conditions
from components.conditions.frequencies import sample_index
from components.conditions.ports import Ports
from components.diffusion.guidance import (
    Guide,
    autoguided,
    clamped,
    classifier_free,
    consistent,
    guided_by,
    known,
    times_within,
)
from components.diffusion.network import Network
from components.diffusion.predict import min_snr_weight, p2_weight, target_of, v_weight, x0_from
from components.diffusion.process import BaseDistribution, Process, Step
from components.diffusion.samplers import Denoised, Denoiser, ancestral, ddim, dpm_solver_2m, repainted
from components.diffusion.variational import Posterior, bound_bits
from components.errors import ConfigError
from components.fields import mask_name
from components.generators.base import Generator, TrainingRows
from components.generators.config import DiffusionConfig, GeneratorData
from components.generators.known import known_part
from components.generators.masks import drawn_masks
from components.generators.sampling import AnySampling, Beside, DiffusionSampling, GuideOptions, check_sampling
from components.generators.scale import channel_scale
from components.nn.dropout import RowDropout
from components.rng import BatchRng, Repeated, Rng
from components.target import KNOWN, LOW_RES, EventSpec

_BOUND_WEIGHT = 0.001


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
        base: BaseDistribution | None = None,
        standardize: bool = False,
    ) -> None:
        super().__init__(config, data, spec=spec)
        self.net, self.conditioner, self.standardize = network, conditions, standardize
        self.process = Process(config.schedule, base)
        self.posterior = Posterior(config.schedule) if config.variance == "learned" else None
        per_channel = (spec.shape[0], *[1] * (len(spec.shape) - 1))
        self.register_buffer("mean", torch.zeros(per_channel))
        self.register_buffer("std", torch.ones(per_channel))
        self.earlier = self.guide = None

    def fit(self, rows: TrainingRows, seed: int, *, trained: bool = False) -> None:
        super().fit(rows, seed, trained=trained)
        if self.standardize and not trained:
            mean, std = channel_scale(rows, self.makes, self.spec)
            self.mean.copy_(mean)
            self.std.copy_(std)
        base = self.process.base
        if base.has_components and not trained:
            x0, *read = (rows.field(name, np.arange(len(rows))) for name in (self.makes, *base.fields))
            base.fit(self._scaled(x0), dict(zip(base.fields, read, strict=True)), seed)

    def loss(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        """Mean squared error of the prediction, over the elements; weighted as v or by min-SNR if configured.

        A learned variance adds the variational bound of the sampled time. Paper: 2102.09672, eq. 16, lambda 0.001.
        """
        x0, process = self._scaled(self.checked(batch)), self.process
        if self.conditioner.inpaints:
            batch = {**batch, KNOWN: x0, mask_name(KNOWN): drawn_masks(rng, (x0.shape[-2], x0.shape[-1]))}
        ports = self.conditioner.training_ports(batch, rng)
        component = process.base.of_rows(x0, batch)
        T, kind = self.config.schedule.n_times, self.config.prediction
        t = rng.integers(T)
        ab = process.alpha_bar(t, x0)
        eps = rng.normal(*x0.shape[1:])
        w0 = process.standard(x0, component)
        w_t = process.noised(w0, t, eps)
        drops = self.training and self.net.drop_prob > 0
        ports = replace(ports, component=component, dropout=RowDropout(rng, self.net.drop_prob) if drops else None)
        predicted, f = self._predicted(process.placed(w_t, component), self.net.time_vectors(t), ports)
        target = x0 if kind == "x0" else target_of(kind, w0, eps, ab)
        errors: Tensor = (predicted - target).square().flatten(1).mean(1)
        weight = self._weight(process.ab[t])
        errors = errors if weight is None else errors * weight
        if component is not None:
            own = process.base.loss(x0, component, batch, rng, 1.0 if weight is None else weight)
            errors = errors if own is None else errors + own
        if self.posterior is None or f is None:
            return errors
        guess = self._guess(w_t, predicted.detach(), ab, component)
        return errors + T * _BOUND_WEIGHT * bound_bits(self.posterior, w0, w_t, guess, f.float(), t)

    @torch.no_grad()
    def sample(self, batch: Batch, sampling: AnySampling, rng: Rng) -> Tensor:
        check_sampling(sampling, self.config, Beside(self.earlier is not None, self.guide is not None))
        options = cast(DiffusionSampling, sampling)
        steps = self.process.steps(options.steps, options.spacing, options.sections)
        given = known_part(batch, self.spec)
        x_known = None if given is None else self._scaled(given.target)
        if x_known is not None:
            batch = {**batch, KNOWN: x_known}
        denoise, ports = self._conditional(steps, options, batch, rng)
        component = ports.first(rng.rows).component
        if self.spec.space == "pixels":
            denoise = clamped(denoise, -1.0, 1.0)
        if options.guide is not None:
            denoise = self._followed(denoise, steps, options.guide, batch, component)
        if given is not None and x_known is not None:
            denoise = known(denoise, self.process.standard(x_known, component), given.where)
        if options.consistent and LOW_RES in batch:
            denoise = consistent(denoise, self._scaled(batch[LOW_RES]))

        def walk(x_t: Tensor, some: Sequence[Step]) -> Tensor:
            match options.sampler:
                case "ddim":
                    return ddim(denoise, x_t, ports, some, eta=options.eta, rng=rng)
                case "ancestral":
                    return ancestral(denoise, x_t, ports, some, rng=rng)
                case "dpm_solver_2m":
                    return dpm_solver_2m(denoise, x_t, ports, some)

        x_T, times = rng.normal(*self.spec.shape) * (options.temperature or 1.0), options.repaint or 1
        w = repainted(walk, x_T, steps, times=1 if given is None else times, rng=rng)
        x = self._stored(self.process.placed(w, component))
        return x if given is None else torch.where(given.where, given.target, x)

    def _conditional(
        self, steps: tuple[Step, ...], options: DiffusionSampling, batch: Batch, rng: Rng
    ) -> tuple[Denoiser, Ports]:
        """The denoiser with what guides it away from weaker guesses, and the ports that it takes."""
        at, repeated = times_within(steps, options.guidance_interval), Repeated(rng)
        batch = self._with_class(batch, rng)
        ports, null = self.conditioner.sampling_ports(batch, repeated)
        component = self.process.base.sampled(batch, rng)
        ports, null = replace(ports, component=component), replace(null, component=component)
        denoise = self.denoiser(steps)
        if options.guidance > 0:
            return classifier_free(denoise, options.guidance, at), self.net.prepare(ports.beside(null))
        if options.autoguidance is not None and self.earlier is not None:
            weak_ports, _ = self.earlier.conditioner.sampling_ports(batch, repeated.again())
            weak = self.earlier.within(self.process, steps, replace(weak_ports, component=component))
            denoise = autoguided(denoise, weak, options.autoguidance, at)
        return denoise, self.net.prepare(ports)

    def within(self, process: Process, steps: tuple[Step, ...], ports: Ports) -> Callable[[Tensor, int], Denoised]:
        """The denoiser with these ports, in the coordinates of another process, whose base may have learned on."""
        denoise, ports, mine, component = self.denoiser(steps), self.net.prepare(ports), self.process, ports.component

        def translated(x_t: Tensor, t: int) -> Denoised:
            guess = denoise(mine.standard(process.placed(x_t, component), component), t, ports)
            return guess._replace(x0=process.standard(mine.placed(guess.x0, component), component))

        return translated

    def _followed(
        self,
        denoise: Denoiser,
        steps: tuple[Step, ...],
        options: GuideOptions,
        batch: Batch,
        component: Tensor | None,
    ) -> Denoiser:
        """The denoiser guided to what the batch says. Raises: ConfigError where it says nothing."""
        guide = self.guide
        y = None if guide is None else batch.get(guide.field)
        if guide is None or y is None:
            field = "class" if guide is None else guide.field
            raise ConfigError(f"a guide needs the {field} to guide to", fix=f"name a {field}, or leave the scale out")

        def log_likelihood(x_t: Tensor, t: int) -> Tensor:
            return guide.log_likelihood(self.process.placed(x_t, component), t, y)

        at = times_within(steps, options.interval)
        return guided_by(denoise, log_likelihood, options.scale, {step.t: step.ab for step in steps}, at)

    def denoiser(self, steps: tuple[Step, ...]) -> Denoiser:
        """The network for the times of these steps; what depends on the time alone is computed once.

        x_t and the guess are in the coordinates in which each row's component is N(0, I); the network sees the data's.
        """
        vectors = self.net.time_vectors(torch.tensor([step.t for step in steps], device=self.mean.device))
        places = {step.t: i for i, step in enumerate(steps)}

        def denoise(x_t: Tensor, t: int, ports: Ports) -> Denoised:
            i = places[t]
            seen = self.process.placed(x_t, ports.component)
            predicted, f = self._predicted(seen, vectors[i : i + 1], ports)
            x0 = self._guess(x_t, predicted, self.process.ab[t], ports.component)
            return Denoised(x0, None if f is None else steps[i].log_variance(f))

        return denoise

    def _predicted(self, x_t: Tensor, times: Tensor, ports: Ports) -> tuple[Tensor, Tensor | None]:
        """The network's prediction and, where it is learned, the variance's place f between its bounds."""
        out: Tensor = self.net(x_t, times, ports)
        predicted, v = (out, None) if self.posterior is None else out.chunk(2, dim=1)
        if ports.enlarged is not None:
            predicted = predicted + (ports.enlarged - self.mean) / self.std
        return predicted, None if v is None else (v + 1) / 2

    def _guess(self, w_t: Tensor, predicted: Tensor, ab: Tensor, component: Tensor | None) -> Tensor:
        """The clean sample, in the coordinates of w_t; the network predicts x0 itself in those of the data."""
        if self.config.prediction == "x0":
            return self.process.standard(predicted, component)
        return x0_from(self.config.prediction, w_t, predicted, ab)

    def _weight(self, ab: Tensor) -> Tensor | None:
        """Of the squared errors at these times; None for 1."""
        if self.config.min_snr is not None:
            return min_snr_weight(self.config.prediction, ab, self.config.min_snr)
        match self.config.weighting:
            case "plain":
                return None
            case "v":
                return v_weight(self.config.prediction, ab)
            case "p2":
                return p2_weight(ab)

    def _with_class(self, batch: Batch, rng: Rng) -> Batch:
        """A class that the component depends on is sampled before both."""
        frequencies = self.class_frequencies
        if "class" not in self.process.base.fields or "class" in batch or frequencies is None:
            return batch
        return {**batch, "class": sample_index(frequencies, rng)}

    def _scaled(self, target: Tensor) -> Tensor:
        """What the network sees of a stored target."""
        return (self.spec.as_float(target) - self.mean) / self.std

    def _stored(self, x: Tensor) -> Tensor:
        if self.spec.space == "pixels":
            return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return (x * self.std + self.mean).to(getattr(torch, self.spec.dtype))
