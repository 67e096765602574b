"""The MoCo v3 encoder: a ViT with fixed positions and a pre-trained projector. Paper: 2104.02057."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Self

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from components.config import Config
from components.encoders.base import RGB, FrozenEncoder
from components.nn.batchnorm import GlobalBatchNorm
from components.nn.vit import VisionTransformer, seeded_init
from components.weights_file import WeightsFile


class MoCoV3Config(Config):
    """A MoCo v3 ViT, trained on the collection or imported."""

    kind: Literal["mocov3"]
    weights: WeightsFile | None
    """A weights file to import (ours, or MoCo v3's published ones); null: trained on the collection."""
    input_px: int = Field(ge=1)
    """Side that images are resized to."""
    patch_px: int = Field(ge=1)
    """Side of a patch; divides input_px."""
    width: int = Field(ge=4)
    """Width of the transformer; a multiple of 4 and of heads."""
    depth: int = Field(ge=1)
    """Number of transformer blocks."""
    heads: int = Field(ge=1)
    """Attention heads (MoCo v3's ViT-S has 12)."""
    mlp_ratio: float = Field(gt=0)
    """Hidden width of each block's MLP over its width."""
    projector_hidden: int = Field(ge=1)
    """Width of the projector's two hidden layers."""
    projector_dim: int = Field(ge=2)
    """Width of the projector's output."""
    output: Literal["projector", "cls"]
    """What is the representation: the projector's output or the [CLS] token after the last norm."""
    freeze_patches: bool
    """Keep the patch projection at its random initial values during training (stop_grad_conv1)."""
    mean: RGB
    """Subtracted from RGB in [0, 1]."""
    std: RGB
    """Divides RGB after the mean is subtracted."""

    @property
    def dim(self) -> int:
        return self.projector_dim if self.output == "projector" else self.width

    def build(self) -> FrozenEncoder:
        """The encoder, with weights still to be loaded."""
        with seeded_init(0):
            network = MoCoV3Network(self)
        return network.frozen()

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="mocov3", weights=None, input_px=8, patch_px=4, width=16, depth=1, heads=2, mlp_ratio=2.0,
            projector_hidden=24, projector_dim=8, output="projector", freeze_patches=True,
            mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
        )  # fmt: skip


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
            input_px=config.input_px, patch_px=config.patch_px, dim=config.width, depth=config.depth,
            heads=config.heads, mlp_ratio=config.mlp_ratio, freeze_patches=config.freeze_patches,
        )  # fmt: skip
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
