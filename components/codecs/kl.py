"""The autoencoder of Stable Diffusion: images <-> Gaussian posteriors over latents, regularized towards N(0, 1).

Paper: 2112.10752 (LDM, section 3.1).
"""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor, nn

from components.codecs.autoencoder import Decoder, Encoder
from components.codecs.base import Codec
from components.codecs.config import KlConfig
from components.rng import RowRng, derive_seed

_LOG_VARIANCE = (-30.0, 20.0)


class Kl(Codec):
    """The autoencoder. Parameter names are CompVis's; diffusers' files are renamed on import."""

    def __init__(self, config: KlConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, 2 * config.latent_dim)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_dim, 2 * config.latent_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_dim, config.latent_dim, 1)
        self.spec = config.target(config.latent_dim)

    def moments(self, images: Float[Tensor, "b 3 px px"]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the posterior, not scaled. Shapes: (b, *spec.shape) each."""
        mean, log_variance = self.quant_conv(self.in_groups(self.encoder, images * 2 - 1)).chunk(2, dim=1)
        return mean, (0.5 * log_variance.clamp(*_LOG_VARIANCE)).exp()

    def encode(self, images: Float[Tensor, "b 3 px px"]) -> Tensor:
        """Differs: the reference draws fresh noise at every use; here a picture has its own."""
        self.check_images(images)
        mean, std = self.moments(images)
        if self.config.posterior == "sample":
            mean = mean + std * _own_noise(images, self.spec.shape)
        return (mean * self.config.scale).to(getattr(torch, self.spec.dtype))

    def decode(self, target: Tensor) -> Float[Tensor, "b 3 px px"]:
        self.check_target(target)
        z = target.to(torch.float32) / self.config.scale
        images = self.in_groups(self.decoder, self.post_quant_conv(z))
        return ((images + 1) / 2).clamp(0, 1)


def _own_noise(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal, seeded by each picture's bytes: rounded to 8 bits, so that tiny errors do not matter."""
    pixels = (images.detach().float() * 255).round().clamp(0, 255).to(torch.uint8).cpu().contiguous().numpy()
    seeds = [derive_seed("posterior", hashlib.sha256(picture.tobytes()).hexdigest()) for picture in pixels]
    return RowRng(seeds, device=images.device).normal(*shape)
