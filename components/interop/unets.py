"""What the tensors of a UNet's file tell of its sizes, whoever wrote it."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor

from components.interop.layout import depth_of, side_of

Tensors = Mapping[str, Tensor]


def unet_sizes(tensors: Tensors, prefix: str = "", *, side: int, n_blocks: int | None = None) -> dict[str, Any]:
    """Sizes of a UNet on targets of this side, by the keys of its config. `n_blocks`: None reads the way up."""
    n_blocks = _n_blocks(tensors, prefix) if n_blocks is None else n_blocks
    first = _firsts(tensors, prefix, n_blocks)
    width = side_of(tensors, f"{prefix}time_embed.0.weight", 1)
    widths = [side_of(tensors, f"{prefix}input_blocks.{i}.0.in_layers.2.weight", 0) for i in first]
    return {
        "width": width,
        "multipliers": [w / width if w % width else w // width for w in widths],
        "n_blocks": n_blocks,
        "attention_sides": [side >> level for level in attention_levels(tensors, prefix, n_blocks)],
        "groups": 32,
    }


def attention_levels(tensors: Tensors, prefix: str, n_blocks: int) -> list[int]:
    """Levels with attention, the finest being 0."""
    first = _firsts(tensors, prefix, n_blocks)
    return [level for level, i in enumerate(first) if f"{prefix}input_blocks.{i}.1.norm.weight" in tensors]


def blocks_of_encoder(tensors: Tensors) -> int:
    """Residual blocks per level of a UNet's encoder half, which has no way up.

    A block that halves the side has no attention and keeps the channels, so blocks with attention that follow one
    another are of one level. 2, as published, where no level has attention.
    """
    n = depth_of(tensors, "input_blocks.")
    attended = [i for i in range(n) if f"input_blocks.{i}.1.norm.weight" in tensors]
    breaks = [at for at, (a, b) in enumerate(pairwise(attended), start=1) if b - a > 1]
    lengths = [b - a for a, b in pairwise([0, *breaks, len(attended)])]
    return max(lengths, default=0) or 2


def _firsts(tensors: Tensors, prefix: str, n_blocks: int) -> list[int]:
    """The first residual block of every level."""
    n_levels = depth_of(tensors, f"{prefix}input_blocks.") // (n_blocks + 1)
    return [1 + level * (n_blocks + 1) for level in range(n_levels)]


def _n_blocks(tensors: Tensors, prefix: str) -> int:
    """Residual blocks per level: on the way up, the one after them ends in the first layer that doubles the side."""
    n = depth_of(tensors, f"{prefix}output_blocks.")
    ends = [f"{j}.{layer}.weight" for j in (1, 2) for layer in ("in_layers.2", "conv")]
    return next((i for i in range(n) if any(f"{prefix}output_blocks.{i}.{end}" in tensors for end in ends)), n - 1)
