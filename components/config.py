"""The base of every config. Needs pydantic alone, so that params are checked without importing torch."""

import math
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_DEPTH, _WIDTH, _SIDE = 1_000, 65_536, 16_384
_LARGEST = {
    "seed": 2**63 - 1,
    **dict.fromkeys(("depth", "decoder_depth", "n_blocks", "multipliers", "layers"), _DEPTH),
    **dict.fromkeys(("width", "dim", "time_dim", "context_dim", "projector_hidden", "projector_dim"), _WIDTH),
    **dict.fromkeys(("predictor_hidden", "head_hidden", "bottleneck", "code_dim", "latent_dim", "mlp_ratio"), _WIDTH),
    **dict.fromkeys(("joint_dim", "n_positions"), _WIDTH),
    **dict.fromkeys(("heads", "decoder_heads", "groups", "count", "k_neighbors", "n_views", "max_tokens"), _WIDTH),
    **dict.fromkeys(("px", "input_px", "patch_px", "patch", "side", "attention_sides", "shape"), _SIDE),
}
"""Field -> the largest number that it may hold, some hundred times what anybody trained: a typing error or a file of a
stranger that asks for 10^12 layers ends in a message, not in a machine without memory."""
_LARGEST_OTHER = 10**9
_MOST_SIZES = 100
"""Numbers in one list of sizes."""


def check_divides(name: str, divisor: int, whole_name: str, whole: int) -> None:
    """Raises: ValueError, with a divisor that fits, unless the one number divides the other."""
    if whole % divisor:
        fits = max(n for n in range(1, divisor) if whole % n == 0)
        raise ValueError(f"{name} is {divisor}, which does not divide {whole_name} {whole}; set {name}: {fits}")


def added(**limits: Any) -> Any:
    """A field that came after there were artifacts: null is as it was before, and left out where a config is written.

    So fingerprints and digests of older params stay. `limits`: as of pydantic's Field.
    """
    return Field(default=None, exclude_if=lambda value: value is None, **limits)


class Config(BaseModel):
    """Base of every config: immutable, no unknown keys, finite and bounded numbers.

    Pydantic would read the fields' docstrings from the sources each time that a command starts; docs/generate.py, which
    alone shows them, turns `use_attribute_docstrings` on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    sized: ClassVar[bool] = True
    """Whether whole numbers are sizes, with bounds; False where they count bytes or milliseconds."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        for name, value in self if self.sized else ():
            numbers = value if isinstance(value, tuple) else (value,)
            for number in numbers:
                most = _LARGEST.get(name, _LARGEST_OTHER if isinstance(number, int) else math.inf)
                if isinstance(number, int | float) and number > most:
                    raise ValueError(f"{name} is too large: {number}; at most {most}")
            if len(numbers) > _MOST_SIZES and isinstance(numbers[0], int | float):
                raise ValueError(f"{name} has too many numbers: {len(numbers)}; at most {_MOST_SIZES}")
        return self
