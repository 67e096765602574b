"""DINO and iBOT: a ViT with learned positions and an MLP head. Papers: 2104.14294 (DINO), 2111.07832 (iBOT)."""

from jaxtyping import Float
from torch import Tensor, nn

from components.encoders.base import FrozenEncoder
from components.encoders.config import DinoConfig
from components.encoders.published import headed_vit


class DinoHead(nn.Module):
    """Three linear layers with exact GELU between."""

    def __init__(self, width: int, hidden: int, bottleneck: int) -> None:
        super().__init__()
        layers = (nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))

    def forward(self, cls: Float[Tensor, "b width"]) -> Float[Tensor, "b bottleneck"]:
        out: Tensor = self.mlp(cls)
        return out


def build(config: DinoConfig) -> FrozenEncoder:
    """The encoder, with fresh weights."""
    return headed_vit(config, lambda: DinoHead(config.width, config.head_hidden, config.bottleneck))
