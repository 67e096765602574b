"""DINO and iBOT: a ViT with learned positions and an MLP head. Papers: 2104.14294 (DINO), 2111.07832 (iBOT)."""

from typing import Literal, Self

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from components.encoders.published import PublishedVit


class DinoConfig(PublishedVit):
    """The teacher of a DINO or iBOT training.

    Differs: as in the RCG reference, the head ends after its MLP: neither L2 normalization nor the weight-normalized
    last layer is applied.
    """

    kind: Literal["dino", "ibot"]
    head_hidden: int = Field(ge=1)
    """Width of the head's two hidden layers (published: 2048)."""
    bottleneck: int = Field(ge=2)
    """Width of the head's output (published: 256)."""

    @property
    def head_dim(self) -> int:
        return self.bottleneck

    def head(self) -> nn.Module:
        return DinoHead(self.width, self.head_hidden, self.bottleneck)

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="dino", weights=None, input_px=8, patch_px=4, width=16, depth=1, heads=2, mlp_ratio=2.0,
            head_hidden=24, bottleneck=8, output="projector",
            mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
        )  # fmt: skip


class DinoHead(nn.Module):
    """Three linear layers with exact GELU between."""

    def __init__(self, width: int, hidden: int, bottleneck: int) -> None:
        super().__init__()
        layers = (nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))

    def forward(self, cls: Float[Tensor, "b width"]) -> Float[Tensor, "b bottleneck"]:
        out: Tensor = self.mlp(cls)
        return out
