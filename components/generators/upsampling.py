"""Upsamplers: diffusion over large images given small ones.

An upsampler is a generator of pixels with a condition of kind low_res; a cascade is one behind another generator.
Paper: 2105.05233 (ADM-U), 2106.15282 (cascades: noise on the small image, and its level).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor
from torch.nn import functional as tf

from components.base import Batch
from components.config import Config
from components.errors import ConfigError
from components.fields import TEXT_FIELDS, FieldSpec, mask_name, of_fields
from components.generators.base import Generator
from components.generators.config import GeneratorConfig, GeneratorData
from components.generators.sampling import Sampling
from components.rng import Rng
from components.target import KNOWN, LOW_RES, NOISE, TargetSpec

LARGE = "large"
"""Entry of a batch: what an upsampler made. Shapes: (b, c, px, px) uint8."""
LARGE_KNOWN = "large_known"
"""The same of an edit, of which only what its mask says counts; as KNOWN."""
HOW = "sampling.json"
"""File of the stage that says how its upsampler is sampled."""


class UpsamplerSampling(Config):
    """How an upsampler is sampled, in the stage and in bundles."""

    how: Sampling
    """Options of the diffusion."""
    noise: float = Field(ge=0, le=1)
    """Level of the noise that is added to the small image, 0 for none, at most that of training: more of it mends what
    the generator before did wrong, and keeps less of it."""


def check_noise(noise: float | None, config: GeneratorConfig) -> None:
    """Raises: ConfigError for a level that training did not reach."""
    most = config.condition("low_res").noise
    if noise is not None and not 0 <= noise <= most:
        raise ConfigError("the upsampler was not trained with this level of noise", got=noise, expected=f"0 … {most}")


def upsampler_data(
    n_channels: int, small: int, large: int, classes: Sequence[str] | None, more: Sequence[FieldSpec] = ()
) -> GeneratorData:
    """What an upsampler from `small` to `large` pixels is built for. `more`: fields of texts."""
    shape = (n_channels, large, large)
    target = TargetSpec(space="pixels", shape=shape, dtype="uint8", n_codes=None, image_px=large)
    low_res = FieldSpec(name=LOW_RES, dtype="uint8", shape=(n_channels, small, small))
    named = None if classes is None else tuple(classes)
    return GeneratorData(target=target, dim=1, classes=named, more=(low_res, *more))


def shrunk(large: UInt8[Tensor, "b c px px"], small: int) -> UInt8[Tensor, "b c small small"]:
    """The mean of each square of pixels, rounded to bytes."""
    return tf.avg_pool2d(large.float(), large.shape[-1] // small).round().to(torch.uint8)


def upsampled(
    upsampler: Generator,
    images: Float[Tensor, "b 3 small small"],
    sampling: UpsamplerSampling,
    rng: Rng,
    *,
    batch: Batch,
) -> UInt8[Tensor, "b c px px"]:
    """Large images of these small ones in [0, 1], which are rounded to bytes first, as in training.

    `batch` may hold the class and the text of each, without which an upsampler that takes one sees none, and what is
    known of the large image.
    """
    channels = upsampler.spec.shape[0]
    small = (images[:, :channels] * 255).round().to(torch.uint8)
    level = torch.full((len(small),), sampling.noise, device=small.device)
    seen = {LOW_RES: small, NOISE: level, **of_fields(batch, set(TEXT_FIELDS) & set(upsampler.conditions))}
    if "class" in upsampler.conditions:
        seen["class"] = batch.get("class", torch.full((len(small),), -1, device=small.device))
    if LARGE_KNOWN in batch:
        seen |= {KNOWN: batch[LARGE_KNOWN], mask_name(KNOWN): batch[mask_name(LARGE_KNOWN)]}
    how = sampling.how if sampling.noise == 0 else sampling.how.model_copy(update={"consistent": False})
    return upsampler.sample(seen, how, rng)


def as_images(large: UInt8[Tensor, "b c px px"]) -> Float[Tensor, "b 3 px px"]:
    """In [0, 1], gray as RGB."""
    return (large.float() / 255).expand(-1, 3, -1, -1)
