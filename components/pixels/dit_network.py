"""The transformer of DiT: patches, modulated by time and condition, that may attend to a sequence.

Paper: 2212.09748. n: tokens, p: patch side, m: positions of a sequence.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from components.conditions.ports import Ports
from components.diffusion.network import Network
from components.nn.attention import Attention, CrossAttention, Mlp
from components.nn.patches import PatchEmbed, sincos_positions
from components.nn.timestep import sinusoids
from components.nn.unit import Unit

_N_SINUSOIDS = 256


@dataclass(frozen=True)
class DitShape:
    """Sizes of the network without its further ports."""

    c_in: int
    c_out: int
    side: int
    """Of x_t, in target elements."""
    width: int
    depth: int
    heads: int
    patch: int
    mlp_ratio: float


class TimeEmbedder(nn.Module):
    """256 sinusoids of t, then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_N_SINUSOIDS, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n width"]:
        out: Tensor = self.mlp(sinusoids(t, _N_SINUSOIDS))
        return out


class DitBlock(Unit, nn.Module):
    """Transformer block whose norms are shifted, scaled and gated by the condition (adaLN-zero).

    With a sequence width it attends to a sequence between self-attention and MLP, as in PixArt-alpha (2310.00426), here
    after a norm without parameters.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, sequence_width: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(width, heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.cross_attn = None if sequence_width is None else CrossAttention(width, heads, sequence_width)

    def forward(
        self, x: Float[Tensor, "b n width"], c: Float[Tensor, "#b width"], ports: Ports
    ) -> Float[Tensor, "b n width"]:
        modulation = self.adaLN_modulation(c)[:, None]  # (b, 1, 6 width)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=2)
        x = x + gate1 * self.attn(torch.addcmul(shift1, self.norm1(x), 1 + scale1))
        if self.cross_attn is not None and ports.sequence is not None:
            normed = nn.functional.layer_norm(x, x.shape[2:], eps=1e-6)
            x = x + self.cross_attn(normed, ports.sequence, ports.mask)
        out: Tensor = x + gate2 * self.mlp(torch.addcmul(shift2, self.norm2(x), 1 + scale2))
        return out


class FinalLayer(nn.Module):
    """Modulated norm, then a linear map of each token to its patch."""

    def __init__(self, width: int, n_out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, n_out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Float[Tensor, "b n width"], c: Float[Tensor, "#b width"]) -> Float[Tensor, "b n out"]:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=2)
        out: Tensor = self.linear(torch.addcmul(shift, self.norm_final(x), 1 + scale))
        return out


class DitNetwork(Network):
    """A vector is added to the time, a sequence is attended to by every block, a spatial condition is patched with x_t.

    Parameter names are DiT's.
    Differs: GELU is exact (erf), as in the RCG reference and unlike the published DiT; fresh positions are laid out as
    in components.nn.patches, rows first, where DiT has columns first.
    """

    input_weight = "x_embedder.proj.weight"

    def __init__(self, shape: DitShape, *, sequence_width: int | None = None, c_extra: int = 0) -> None:
        width = shape.width
        super().__init__(vector_width=width, sequence_width=sequence_width, c_extra=c_extra)
        self.patch, self.channels = shape.patch, shape.c_out
        self.x_embedder = PatchEmbed(shape.side, shape.patch, shape.c_in + c_extra, width)
        self.t_embedder = TimeEmbedder(width)
        positions = sincos_positions(self.x_embedder.side, width)
        self.pos_embed = nn.Parameter(positions[None], requires_grad=False)  # (1, n, width)
        self.blocks = nn.ModuleList(
            DitBlock(width, shape.heads, shape.mlp_ratio, sequence_width) for _ in range(shape.depth)
        )
        self.final_layer = FinalLayer(width, shape.patch**2 * shape.c_out)
        self._initialize()

    def _initialize(self) -> None:
        """Xavier; N(0, 0.02) in the time MLP; zero modulation, head and attention to a sequence.

        So every block starts as the identity.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.flatten(1))  # a patch is one input vector
        for name, weight in self.t_embedder.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(weight, std=0.02)
        modulations = [m.adaLN_modulation[1] for m in (*self.blocks, self.final_layer)]
        for linear in (*modulations, self.final_layer.linear):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        if self.x_embedder.proj.bias is not None:
            nn.init.zeros_(self.x_embedder.proj.bias)
        for module in self.modules():
            if isinstance(module, CrossAttention):
                module.initialize()

    def time_vectors(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n width"]:
        vectors: Tensor = self.t_embedder(t)
        return vectors

    def forward(
        self, x_t: Float[Tensor, "b c h w"], time: Float[Tensor, "#b width"], ports: Ports
    ) -> Float[Tensor, "b out h w"]:
        x = x_t if ports.spatial is None else torch.cat([x_t, ports.spatial], 1)
        x = self.x_embedder(x) + self.pos_embed  # (b, n, width)
        c = time if ports.vector is None else time + ports.vector
        for block in self.blocks:
            x = block(x, c, ports)
        return self._image(self.final_layer(x, c))

    def _image(self, patches: Float[Tensor, "b n out"]) -> Float[Tensor, "b c h w"]:
        side, p = self.x_embedder.side, self.patch
        x = patches.reshape(-1, side, side, p, p, self.channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.channels, side * p, side * p)
