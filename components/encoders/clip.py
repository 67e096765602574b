"""CLIP's image tower (2103.00020), as OpenAI, open_clip and Hugging Face publish it: timm's ViT with a norm before it.

With output "projector" the representation is the image in the space that the text tower shares.
Differs: pictures are resized whole, without antialias, as for every encoder here, where CLIP crops the middle.
"""

from functools import partial

from torch import nn

from components.encoders.base import FrozenEncoder
from components.encoders.config import ClipConfig
from components.nn.vit import seeded_init


def build(config: ClipConfig) -> FrozenEncoder:
    """The encoder, with fresh weights."""
    from timm.layers import QuickGELU
    from timm.models.vision_transformer import VisionTransformer

    with seeded_init(0):
        network = VisionTransformer(
            img_size=config.input_px,
            patch_size=config.patch_px,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            num_classes=0,
            global_pool="token",
            pre_norm=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            act_layer=QuickGELU if config.quick_gelu else nn.GELU,
        )
        if config.output == "projector":
            network.head = nn.Linear(config.width, config.joint_dim, bias=False)
    return FrozenEncoder(network, dim=config.dim, input_px=config.input_px, mean=config.mean, std=config.std)
