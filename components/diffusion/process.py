"""The forward process: how noise grows with diffusion time, and the distribution in which it ends.

b_t: variance added at step t; ab_t: alpha-bar_t, the share of signal variance left after step t:
x_t = sqrt(ab_t) x0 + sqrt(1 - ab_t) eps, t = 0 .. T-1 (Ho et al. 2020, eq. 4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from components.base import Batch
from components.diffusion.predict import noised
from components.diffusion.schedule import ScheduleConfig, Spacing, check_steps, visited_times
from components.rng import Rng

_COSINE_OFFSET = 0.008
_COSINE_MAX_BETA = 0.999


class Frame(NamedTuple):
    """Coordinates in which the process of each example is the standard one: w = (x - loc) / scale."""

    loc: Tensor
    scale: Tensor

    def standard(self, x: Tensor) -> Tensor:
        return (x - self.loc) / self.scale

    def placed(self, w: Tensor) -> Tensor:
        return self.loc + self.scale * w


class BaseDistribution(nn.Module):
    """p(x_T), where the forward process ends and sampling starts. This one is N(0, I), without components.

    Others are N(loc, scale^2) of a component, chosen for an example once: the index of one of several, or loc and scale
    themselves. What they are fitted to lives in their buffers, or in parameters if it learns on.
    """

    fields: tuple[str, ...] = ()
    """Fields of the batch by which a component is chosen."""

    @property
    def has_components(self) -> bool:
        return False

    def fit(self, x0: Tensor, batch: Batch, seed: int) -> None:
        """Read it off all training rows. Raises: ConfigError when they do not suffice."""

    def of_rows(self, x0: Tensor, batch: Batch) -> Tensor | None:  # noqa: ARG002
        """Component of each training row; None without components."""
        return None

    def sampled(self, batch: Batch, rng: Rng) -> Tensor | None:  # noqa: ARG002
        """Component of each row to be sampled."""
        return None

    def frame(self, component: Tensor) -> Frame:
        """loc and scale of these components; no gradient goes through them."""
        raise NotImplementedError

    def loss(
        self, x0: Tensor, component: Tensor, batch: Batch, rng: Rng, weight: Tensor | float
    ) -> Float[Tensor, " b"] | None:
        """What trains the base itself, apart from the denoiser; `weight`: of the sampled time."""
        raise NotImplementedError


@dataclass(frozen=True)
class Step:
    """One move of a sampler: from time t, where alpha-bar is ab, to where it is ab_prev (closer to the data)."""

    t: int
    ab: float
    ab_prev: float

    @property
    def noise(self) -> float:
        """Noise per signal, sqrt(1 - ab) / sqrt(ab): sigma of a process that adds noise alone."""
        return math.sqrt((1 - self.ab) / self.ab)

    @property
    def beta(self) -> float:
        """Variance that the respaced chain adds in this step."""
        return 1 - self.ab / self.ab_prev

    @property
    def beta_tilde(self) -> float:
        """Variance of the posterior q(x_prev | x_t, x0); 0 where the step ends on the data."""
        return (1 - self.ab_prev) / (1 - self.ab) * self.beta

    def log_variance(self, f: Tensor) -> Tensor | None:
        """beta^f beta-tilde^(1 - f), as a logarithm; None where the step ends on the data.

        Paper: 2102.09672, eq. 15.
        """
        if self.beta_tilde == 0:
            return None
        return math.log(self.beta_tilde) + f * (math.log(self.beta) - math.log(self.beta_tilde))


def alpha_bars(config: ScheduleConfig) -> Float64[Tensor, " T"]:
    """alpha-bar_t for t = 0 .. T-1, on the CPU whatever the default device.

    Paper: sqrt_linear 2112.10752 ("linear" in its code); linear 2006.11239, sec. 4; cosine 2102.09672, eq. 17.
    """
    T = config.n_times
    ramp = torch.arange(T, dtype=torch.float64, device="cpu") / (T - 1)
    match config.kind:
        case "sqrt_linear":
            betas = (math.sqrt(0.0015) + ramp * (math.sqrt(0.0195) - math.sqrt(0.0015))) ** 2
        case "linear":
            betas = 1e-4 + ramp * (0.02 - 1e-4)
        case "cosine":
            edges = torch.arange(T + 1, dtype=torch.float64, device="cpu") / T
            level = torch.cos((edges + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2) ** 2
            betas = (1 - level[1:] / level[:-1]).clamp(max=_COSINE_MAX_BETA)
    return torch.cumprod(1 - betas, dim=0)


def sampler_steps(
    config: ScheduleConfig, n_steps: int, spacing: Spacing, sections: Sequence[int] | None = None
) -> tuple[Step, ...]:
    """The n_steps moves of a sampler from noise to data; their number is honored exactly.

    trailing: T-1 down in strides of T / n_steps, rounded (2305.08891, sec. 3.3). linspace: from T-1 to 0, both
    included ("250" of guided-diffusion). leading: multiples of one stride from 0 up ("ddim25" there). These end at
    ab = 1, i.e. on the data, as does fast27: GLIDE's 27 times, most of them near the data. reference: 1, c + 1,
    2c + 1, .. with c = T / n_steps; ends at ab_0, so the result keeps noise of std sqrt(1 - ab_0): the sampler of
    latent diffusion and of the reference RDM. `sections`: steps in equal parts of the times, linspace in each.
    Raises: ConfigError naming the nearest counts that this spacing can honor.
    Differs: latent diffusion rounds other counts up silently, or fails with an IndexError.
    """
    T = config.n_times
    check_steps(T, n_steps, spacing, sections)
    times = visited_times(T, n_steps, spacing, sections)
    ab = alpha_bars(config).tolist()
    ends = [ab[0] if spacing == "reference" else 1.0, *(ab[t] for t in times[:-1])]
    return tuple(Step(t, ab[t], end) for t, end in zip(reversed(times), reversed(ends), strict=True))


class Process(nn.Module):
    """A schedule and a base distribution."""

    ab: Tensor

    def __init__(self, schedule: ScheduleConfig, base: BaseDistribution | None = None) -> None:
        super().__init__()
        self.schedule = schedule
        self.base = base or BaseDistribution()
        self.register_buffer("ab", alpha_bars(schedule).float(), persistent=False)

    def alpha_bar(self, t: Int[Tensor, " b"], like: Tensor) -> Tensor:
        """ab_t of each example, for broadcasting over `like`."""
        return self.ab[t].reshape(-1, *[1] * (like.ndim - 1))

    def noised(self, x0: Tensor, t: Int[Tensor, " b"], eps: Tensor) -> Tensor:
        """A sample of q(x_t | x0)."""
        return noised(x0, eps, self.alpha_bar(t, x0))

    def standard(self, x: Tensor, component: Tensor | None) -> Tensor:
        """Data in the coordinates in which this process runs: those of each row's component, if it has one."""
        return x if component is None else self.base.frame(component).standard(x)

    def placed(self, w: Tensor, component: Tensor | None) -> Tensor:
        """Back to the data's coordinates."""
        return w if component is None else self.base.frame(component).placed(w)

    def steps(self, n_steps: int, spacing: Spacing, sections: Sequence[int] | None = None) -> tuple[Step, ...]:
        """The moves of a sampler."""
        return sampler_steps(self.schedule, n_steps, spacing, sections)
