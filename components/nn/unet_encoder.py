"""The encoder half of a UNet, pooled by attention: ADM's noise-aware classifier. Paper: 2105.05233, app. H.

Parameter names are those of the paper's code, one to one.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from components.nn.spatial import AttentionPool
from components.nn.unet import UNetShape, middle, way_down


class UNetEncoder(nn.Module):
    """(x, e) -> c_out numbers. `side`: of x. Raises: ConfigError for heads that do not split a level."""

    def __init__(self, shape: UNetShape, side: int) -> None:
        super().__init__()
        shape = replace(shape, family="adm")
        self.time_embed = nn.Sequential(
            nn.Linear(shape.width, shape.time_dim), nn.SiLU(), nn.Linear(shape.time_dim, shape.time_dim)
        )
        self.input_blocks, left = way_down(shape)
        channels, side = left[-1], side >> (len(shape.multipliers) - 1)
        self.middle_block = middle(shape, channels)
        self.out = nn.Sequential(
            nn.GroupNorm(shape.groups, channels, eps=1e-5),
            nn.SiLU(),
            AttentionPool(side, channels, shape.head_width_of(channels), shape.c_out),
        )

    def forward(self, x: Float[Tensor, "b c h w"], e: Float[Tensor, "#b e"]) -> Float[Tensor, "b out"]:
        h = x.contiguous(memory_format=torch.channels_last)
        for stage in self.input_blocks:
            h = stage(h, e, None, None)
        out: Tensor = self.out(self.middle_block(h, e, None, None))
        return out
