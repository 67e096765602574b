"""The vision transformer of MoCo v3: timm's parameter names, fixed positions, [CLS] output."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from components.nn.attention import Block
from components.nn.patches import PatchEmbed, sincos_positions


class VisionTransformer(nn.Module):
    """Pre-norm ViT; the result is the [CLS] token after the final LayerNorm.

    Paper: 2104.02057. Differs: positions and, if asked, the patch projection are parameters that take no gradient.
    """

    def __init__(
        self, *, input_px: int, patch_px: int, dim: int, depth: int, heads: int, mlp_ratio: float, freeze_patches: bool
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.patch_embed = PatchEmbed(input_px, patch_px, 3, dim)
        positions = torch.cat([torch.zeros(1, dim), sincos_positions(self.patch_embed.side, dim)])  # zero for [CLS]
        self.pos_embed = nn.Parameter(positions[None], requires_grad=False)
        self.blocks = nn.Sequential(*(Block(dim, heads, mlp_ratio=mlp_ratio, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self._initialize()
        self.patch_embed.requires_grad_(not freeze_patches)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b dim"]:
        tokens = self.patch_embed(x)  # (b, n, dim)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.pos_embed
        out: Tensor = self.norm(self.blocks(tokens)[:, 0])  # LayerNorm is per token: only [CLS] is needed
        return out

    def _initialize(self) -> None:
        """Xavier-uniform with qkv as three square matrices, zero biases, [CLS] of std 1e-6."""
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear):
                n_out = module.out_features // 3 if name.endswith("qkv") else module.out_features
                bound = math.sqrt(6.0 / (n_out + module.in_features))
                nn.init.uniform_(module.weight, -bound, bound)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        proj = self.patch_embed.proj
        bound = math.sqrt(6.0 / (proj.weight[0].numel() + proj.out_channels))
        nn.init.uniform_(proj.weight, -bound, bound)
        if proj.bias is not None:
            nn.init.zeros_(proj.bias)
        nn.init.normal_(self.cls_token, std=1e-6)


@contextmanager
def seeded_init(seed: int) -> Iterator[None]:
    """Modules built inside draw their initial weights from `seed`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
