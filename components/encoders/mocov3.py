"""The MoCo v3 encoder: a ViT with fixed positions and a pre-trained projector. Paper: 2104.02057."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from components.encoders.base import FrozenEncoder
from components.encoders.config import MoCoV3Config
from components.nn.batchnorm import GlobalBatchNorm
from components.nn.vit import VisionTransformer, seeded_init


def projection_head(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers without bias, each with BatchNorm; ReLU between; the last BatchNorm has no affine.

    Statistics are those of the global batch. Paper: 2104.02057; the layout is its reference code's.
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths[:-1]):
        layers += [nn.Linear(n_in, n_out, bias=False), GlobalBatchNorm(n_out), nn.ReLU(inplace=True)]
    layers += [nn.Linear(widths[-2], widths[-1], bias=False), GlobalBatchNorm(widths[-1], affine=False)]
    return nn.Sequential(*layers)


class MoCoV3Network(VisionTransformer):
    """The ViT and its projector `head`; forward gives what the config calls the representation, not standardized."""

    def __init__(self, config: MoCoV3Config) -> None:
        super().__init__(
            input_px=config.input_px,
            patch_px=config.patch_px,
            dim=config.width,
            depth=config.depth,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            freeze_patches=config.freeze_patches,
        )
        hidden = config.projector_hidden
        self.head = projection_head((config.width, hidden, hidden, config.projector_dim))
        self.config = config

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b dim"]:
        cls = self.cls(x)
        out: Tensor = self.head(cls) if self.config.output == "projector" else cls
        return out

    def cls(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b width"]:
        """The [CLS] token after the final LayerNorm."""
        return super().forward(x)

    def frozen(self) -> FrozenEncoder:
        """This network as an Encoder."""
        c = self.config
        return FrozenEncoder(self, dim=c.dim, input_px=c.input_px, mean=c.mean, std=c.std)


def build(config: MoCoV3Config) -> FrozenEncoder:
    """The encoder, with fresh weights."""
    with seeded_init(0):
        network = MoCoV3Network(config)
    return network.frozen()
