"""LDM's VQ-regularized autoencoder at an eighth of the side: images <-> latents, which decoding quantizes.

Paper: 2112.10752 (LDM, section 3.1).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from components.codecs.autoencoder import Decoder, Encoder
from components.codecs.base import Codec
from components.codecs.config import VqF8Config
from components.codecs.vqgan import Codebook


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
