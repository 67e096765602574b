"""What the published self-supervised and supervised ViTs share: their shape, and a network with an optional head."""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from components.config import Config
from components.encoders.base import RGB, FrozenEncoder
from components.nn.vit import VisionTransformer, seeded_init
from components.weights_file import WeightsFile


class PublishedVit(Config):
    """A ViT with imported weights."""

    weights: WeightsFile | None
    """The published file (null only in a saved encoder, whose weights lie beside its config)."""
    input_px: int = Field(ge=1)
    """Side that images are resized to (published: 224)."""
    patch_px: int = Field(ge=1)
    """Side of a patch; divides input_px."""
    width: int = Field(ge=4, multiple_of=4)
    """Width of the transformer; a multiple of heads (ViT-B: 768)."""
    depth: int = Field(ge=1)
    """Number of transformer blocks (ViT-B: 12)."""
    heads: int = Field(ge=1)
    """Attention heads (ViT-B: 12)."""
    mlp_ratio: float = Field(gt=0)
    """Hidden width of each block's MLP over its width (published: 4)."""
    output: Literal["projector", "cls"]
    """What is the representation: the head's output or the [CLS] token after the last norm, which drops the head."""
    mean: RGB
    """Subtracted from RGB in [0, 1]."""
    std: RGB
    """Divides RGB after the mean is subtracted."""

    @property
    def head_dim(self) -> int:
        """Width of the head's output."""
        raise NotImplementedError

    def head(self) -> nn.Module:
        """The head, with fresh weights."""
        raise NotImplementedError

    @property
    def dim(self) -> int:
        return self.head_dim if self.output == "projector" else self.width

    def build(self) -> FrozenEncoder:
        """The encoder, with weights still to be loaded."""
        with seeded_init(0):
            network = HeadedVit(self)
        return FrozenEncoder(network, dim=self.dim, input_px=self.input_px, mean=self.mean, std=self.std)


class HeadedVit(VisionTransformer):
    """The ViT and, if it is read, the head; parameter names are timm's. Not standardized."""

    def __init__(self, config: PublishedVit) -> None:
        super().__init__(
            input_px=config.input_px, patch_px=config.patch_px, dim=config.width, depth=config.depth,
            heads=config.heads, mlp_ratio=config.mlp_ratio, freeze_patches=False,
        )  # fmt: skip
        if config.output == "projector":
            self.head = config.head()
        self.reads_head = config.output == "projector"

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b dim"]:
        cls = super().forward(x)
        out: Tensor = self.head(cls) if self.reads_head else cls
        return out
