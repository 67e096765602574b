"""A vision transformer as the network of a guide, as GLIDE's noise-aware CLIP has it.

Paper: 2112.10741, sec. 2.3; layers as in glide-text2im @69b5307.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from components.conditions.ports import Ports
from components.diffusion.network import Network
from components.nn.attention import Block

_EPS = 1e-5


class TimedViT(Network):
    """(x_t, time vectors) -> c_out numbers: of the token that stands before the patches, a learned one for each time.

    Images are in [-1, 1]; `mean` and `std` are of those in [0, 1]. Differs: keys have a bias, which no softmax notices.
    """

    input_weight = "patches.weight"
    mean: Tensor
    std: Tensor

    def __init__(  # noqa: PLR0913  (one parameter per size)
        self,
        *,
        side: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        n_times: int,
        c_out: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(vector_width=None)
        self.patches = nn.Conv2d(len(mean), width, patch, stride=patch, bias=False)
        self.times = nn.Parameter(torch.randn(n_times, width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width) * width**-0.5)
        self.norm_in, self.norm_out = nn.LayerNorm(width, eps=_EPS), nn.LayerNorm(width, eps=_EPS)
        self.blocks = nn.Sequential(
            *(Block(width, heads, mlp_ratio=mlp_ratio, qkv_bias=True, eps=_EPS) for _ in range(depth))
        )
        self.project = nn.Linear(width, c_out, bias=False)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def time_vectors(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n e"]:
        return self.times[t]

    def forward(
        self, x_t: Float[Tensor, "b c h w"], time: Float[Tensor, "#b e"], _ports: Ports
    ) -> Float[Tensor, "b out"]:
        seen = ((x_t + 1) / 2 - self.mean) / self.std
        tokens = self.patches(seen).flatten(2).transpose(1, 2)  # (b, n, width)
        tokens = torch.cat([time.expand(len(x_t), -1)[:, None], tokens], 1) + self.positions
        out: Tensor = self.project(self.norm_out(self.blocks(self.norm_in(tokens))[:, 0]))
        return out
