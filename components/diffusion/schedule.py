"""Which diffusion times there are, and which of them a sampler visits. Imports without torch.

T: number of diffusion times, t = 0 .. T-1.
"""

from fractions import Fraction
from typing import Literal

from pydantic import Field

from components.config import Config
from components.errors import ConfigError

Prediction = Literal["eps", "v", "x0"]
Spacing = Literal["trailing", "linspace", "leading", "reference"]


class ScheduleConfig(Config):
    """The forward process."""

    kind: Literal["sqrt_linear", "linear", "cosine"]
    """sqrt_linear: "linear" of latent diffusion and of the reference RDM; linear: DDPM, DiT; cosine: 2102.09672."""
    n_times: int = Field(ge=2)
    """Number of diffusion times T."""

    @classmethod
    def tiny(cls) -> "ScheduleConfig":
        return cls(kind="sqrt_linear", n_times=1000)


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


def visited_times(T: int, n: int, spacing: Spacing) -> list[int]:
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
