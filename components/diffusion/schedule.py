"""How noise grows with diffusion time, and which times a sampler visits.

b_t: variance added at step t; ab_t: alpha-bar_t, the share of signal variance left after step t:
x_t = sqrt(ab_t) x0 + sqrt(1 - ab_t) noise, t = 0 .. T-1 (Ho et al. 2020, eq. 4).
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from jaxtyping import Float64
from pydantic import Field
from torch import Tensor

from components.config import Config
from components.errors import ConfigError

Prediction = Literal["eps", "v", "x0"]
Spacing = Literal["trailing", "linspace", "leading", "reference"]

_COSINE_OFFSET = 0.008
_COSINE_MAX_BETA = 0.999


class ScheduleConfig(Config):
    """The forward process."""

    kind: Literal["sqrt_linear", "linear", "cosine"]
    """sqrt_linear: "linear" of latent diffusion and of the reference RDM; linear: DDPM, DiT; cosine: 2102.09672."""
    n_times: int = Field(ge=2)
    """Number of diffusion times T."""

    @classmethod
    def tiny(cls) -> "ScheduleConfig":
        return cls(kind="sqrt_linear", n_times=1000)


@dataclass(frozen=True)
class Step:
    """One move of a sampler: from time t, where alpha-bar is ab, to where it is ab_prev (closer to the data)."""

    t: int
    ab: float
    ab_prev: float


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


def sampler_steps(config: ScheduleConfig, n_steps: int, spacing: Spacing) -> tuple[Step, ...]:
    """The n_steps moves of a sampler from noise to data; their number is honored exactly.

    trailing: T-1 down in strides of T / n_steps, rounded (2305.08891, sec. 3.3). linspace: from T-1 to 0, both
    included ("250" of guided-diffusion). leading: multiples of one stride from 0 up ("ddim25" there). These three end
    at ab = 1, i.e. on the data. reference: 1, c + 1, 2c + 1, .. with c = T / n_steps; ends at ab_0, so the result keeps
    noise of std sqrt(1 - ab_0): the sampler of latent diffusion and of the reference RDM.
    Raises: ConfigError naming the nearest counts that this spacing can honor.
    Differs: latent diffusion rounds other counts up silently, or fails with an IndexError.
    """
    T = config.n_times
    check_steps(T, n_steps, spacing)
    times = _times(T, n_steps, spacing)
    ab = alpha_bars(config).tolist()
    ends = [ab[0] if spacing == "reference" else 1.0, *(ab[t] for t in times[:-1])]
    return tuple(Step(t, ab[t], end) for t, end in zip(reversed(times), reversed(ends), strict=True))


def check_steps(T: int, n_steps: int, spacing: Spacing) -> None:
    """Raises: ConfigError naming the nearest counts that this spacing can honor over T times."""
    valid = valid_counts(T, spacing)
    if n_steps not in valid:
        below = [n for n in valid if n < n_steps][-2:]
        above = [n for n in valid if n > n_steps][:2]
        raise ConfigError(
            f"{n_steps} sampling steps cannot be spaced over {T} diffusion times ({spacing} spacing)",
            got=n_steps,
            expected=f"near it: {', '.join(map(str, below + above))}",
            fix="set steps to one of these",
        )


def _times(T: int, n: int, spacing: Spacing) -> list[int]:
    """The times that are visited, ascending. Halves are rounded to even."""
    match spacing:
        case "trailing":
            return [round(Fraction((i + 1) * T, n)) - 1 for i in range(n)]
        case "linspace":
            return [round(Fraction(i * (T - 1), n - 1)) for i in range(n)]
        case "leading":
            return list(range(0, T, -(-T // n)))
        case "reference":
            return list(range(1, T + 1, T // n))


def valid_counts(T: int, spacing: Spacing) -> list[int]:
    """Step counts that a spacing honors. `reference` needs a divisor of T, and its last time, T - c + 1, to exist."""
    match spacing:
        case "trailing":
            return list(range(1, T + 1))
        case "linspace":
            return list(range(2, T + 1))
        case "leading":
            return [n for n in range(2, T + 1) if len(range(0, T, -(-T // n))) == n]
        case "reference":
            return [n for n in range(1, T) if T % n == 0]
