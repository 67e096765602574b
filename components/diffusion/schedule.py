"""Which diffusion times there are, and which of them a sampler visits. Imports without torch.

T: number of diffusion times, t = 0 .. T-1.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from pydantic import Field

from components.config import Config
from components.errors import ConfigError

Prediction = Literal["eps", "v", "x0"]
Spacing = Literal["trailing", "linspace", "leading", "reference", "fast27"]
_FAST27 = (10, 10, 3, 2, 2)
"""Steps in fifths of the times, the ones with the least noise first; of the last time of all, 997 stands for 999."""


class ScheduleConfig(Config):
    """The forward process."""

    kind: Literal["sqrt_linear", "linear", "cosine"]
    """sqrt_linear: "linear" of latent diffusion and of the reference RDM; linear: DDPM, DiT; cosine: 2102.09672."""
    n_times: int = Field(ge=2)
    """Number of diffusion times T."""

    @classmethod
    def tiny(cls) -> "ScheduleConfig":
        return cls(kind="sqrt_linear", n_times=1000)


def check_steps(T: int, n_steps: int, spacing: Spacing, sections: Sequence[int] | None = None) -> None:
    """Raises: ConfigError naming the nearest counts that this spacing can honor over T times."""
    if sections is not None:
        _check_sections(T, n_steps, spacing, sections)
        return
    valid = valid_counts(T, spacing)
    if n_steps not in valid:
        below = [n for n in valid if n < n_steps][-2:]
        above = [n for n in valid if n > n_steps][:2]
        raise ConfigError(
            f"{n_steps} sampling steps cannot be spaced over {T} diffusion times ({spacing} spacing)",
            got=n_steps,
            expected=f"near it: {', '.join(map(str, below + above))}" if valid else "more diffusion times",
            fix="set steps to one of these" if valid else "choose another spacing",
        )


def _check_sections(T: int, n_steps: int, spacing: Spacing, sections: Sequence[int]) -> None:
    if spacing != "linspace":
        fix = "set spacing: linspace, or sections: null"
        raise ConfigError("sections are spaced with both ends", got=f"spacing: {spacing}", expected="linspace", fix=fix)
    if sum(sections) != n_steps:
        fix = f"set steps: {sum(sections)}, or other sections"
        raise ConfigError("the sections have another number of steps", got=n_steps, expected=sum(sections), fix=fix)
    sizes = _sizes(T, len(sections))
    if wrong := [i for i, (n, size) in enumerate(zip(sections, sizes, strict=True)) if not 1 <= n <= size]:
        got, expected = sections[wrong[0]], f"1 … {sizes[wrong[0]]}"
        raise ConfigError(f"section {wrong[0]} of the diffusion times has not so many", got=got, expected=expected)


def _sizes(T: int, n_sections: int) -> list[int]:
    """Times of each section: equal, the first ones larger by one where they cannot be."""
    return [T // n_sections + (i < T % n_sections) for i in range(n_sections)]


def _in_sections(T: int, sections: Sequence[int]) -> list[int]:
    """Times that are even in each section, its ends among them, or its first one alone."""
    times, start = [], 0
    for n, size in zip(sections, _sizes(T, len(sections)), strict=True):
        times += [start + round(Fraction(i * (size - 1), max(1, n - 1))) for i in range(n)]
        start += size
    return times


def visited_times(T: int, n: int, spacing: Spacing, sections: Sequence[int] | None = None) -> list[int]:
    """The times that are visited, ascending. Halves are rounded to even. `sections`: as of the sampling options."""
    if sections is not None:
        return _in_sections(T, sections)
    match spacing:
        case "fast27":
            return [*_in_sections(T, _FAST27)[:-1], T - 3]
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
        case "fast27":
            return [sum(_FAST27)] if min(_sizes(T, len(_FAST27))) >= max(_FAST27) else []
