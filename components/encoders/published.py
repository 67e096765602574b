"""What the published self-supervised and supervised ViTs share: their shape, and a network with an optional head."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from components.encoders.base import FrozenEncoder
from components.encoders.config import VitConfig
from components.nn.vit import VisionTransformer, seeded_init


class HeadedVit(VisionTransformer):
    """The ViT and, if it is read, the head; parameter names are timm's. Not standardized."""

    def __init__(self, config: VitConfig, make_head: Callable[[], nn.Module]) -> None:
        super().__init__(
            input_px=config.input_px,
            patch_px=config.patch_px,
            dim=config.width,
            depth=config.depth,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            freeze_patches=False,
        )
        self.reads_head = config.output == "projector"
        if self.reads_head:
            self.head = make_head()

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b dim"]:
        cls = super().forward(x)
        out: Tensor = self.head(cls) if self.reads_head else cls
        return out


def headed_vit(config: VitConfig, make_head: Callable[[], nn.Module]) -> FrozenEncoder:
    """The encoder, with fresh weights."""
    with seeded_init(0):
        network = HeadedVit(config, make_head)
    return FrozenEncoder(network, dim=config.dim, input_px=config.input_px, mean=config.mean, std=config.std)
