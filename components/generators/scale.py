"""The scale of latents: what makes each channel have mean 0 and std 1."""

from jaxtyping import Float64
from torch import Tensor

from components.generators.base import TrainingRows
from components.spacing import evenly_spaced
from components.target import EventSpec

_N_ROWS = 1024
"""Training rows, evenly spaced, that the scale is read off."""


def channel_scale(
    rows: TrainingRows, field: str, spec: EventSpec
) -> tuple[Float64[Tensor, "c ..."], Float64[Tensor, "c ..."]]:
    """Mean and std of each channel of a field, for broadcasting over one value of it."""
    x = spec.as_float(rows.field(field, evenly_spaced(len(rows), _N_ROWS))).double()
    over = tuple(axis for axis in range(x.ndim) if axis != 1)
    per_channel = (x.shape[1], *[1] * (x.ndim - 2))
    return x.mean(over).view(per_channel), x.std(over).clamp(min=1e-6).view(per_channel)
