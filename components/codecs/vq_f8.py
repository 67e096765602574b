"""LDM's VQ-regularized autoencoder at an eighth of the side: images <-> latents, which decoding quantizes.

Paper: 2112.10752 (LDM, section 3.1).
"""

from typing import Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from components.codecs.autoencoder import AutoencoderConfig, Decoder, Encoder
from components.codecs.base import Codec
from components.codecs.vqgan import Codebook


class VqF8Config(AutoencoderConfig):
    """As published: width 128, multipliers 1 2 2 4, 2 blocks, attention at level 3, 16,384 codes of 4."""

    kind: Literal["vq-f8"]
    n_codes: int = Field(ge=2)
    """Entries of the codebook (published: 16384)."""
    code_dim: int = Field(ge=1)
    """Channels of what is cached, and dimension of an entry (published: 4)."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="vq-f8", px=8, width=4, multipliers=(1, 2), n_blocks=1, attention_levels=(1,), groups=2, latent_dim=3,
            n_codes=8, code_dim=2, dtype="float32",
        )  # fmt: skip

    def build(self) -> "VqF8":
        return VqF8(self)


class VqF8(Codec):
    """The autoencoder. What is cached is not quantized and not scaled, as LDM trains on it."""

    def __init__(self, config: VqF8Config) -> None:
        super().__init__()
        self.encoder = Encoder(config, config.latent_dim)
        self.decoder = Decoder(config)
        self.quantize = Codebook(config.n_codes, config.code_dim)
        self.quant_conv = nn.Conv2d(config.latent_dim, config.code_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.code_dim, config.latent_dim, 1)
        self.spec = config.target(config.code_dim)

    def encode(self, images: Float[Tensor, "b 3 px px"]) -> Tensor:
        self.check_images(images)
        z_e: Tensor = self.quant_conv(self.in_groups(self.encoder, images * 2 - 1))
        return z_e.to(getattr(torch, self.spec.dtype))

    def decode(self, target: Tensor) -> Float[Tensor, "b 3 px px"]:
        self.check_target(target)
        index = self.quantize.nearest(target.to(torch.float32))
        images = self.in_groups(self.decoder, self.post_quant_conv(self.quantize(index)))
        return ((images + 1) / 2).clamp(0, 1)
