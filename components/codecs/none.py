"""No codec: the pixel generator works on the pixels themselves."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from components.codecs.base import Codec
from components.codecs.config import NoneConfig
from components.target import TargetSpec

_LUMA = (0.299, 0.587, 0.114)
"""Rec. 601, as Pillow's conversion to gray; gray pictures keep their exact bytes."""


class NoneCodec(Codec):
    """Rounds to bytes, and back."""

    def __init__(self, config: NoneConfig) -> None:
        super().__init__()
        self.spec = TargetSpec(
            space="pixels",
            shape=(config.channels, config.px, config.px),
            dtype="uint8",
            n_codes=None,
            image_px=config.px,
        )

    def encode(self, images: Float[Tensor, "b 3 px px"]) -> UInt8[Tensor, "b c px px"]:
        self.check_images(images)
        if self.spec.shape[0] == 1:
            luma = images.new_tensor(_LUMA).view(1, 3, 1, 1)
            images = (images * luma).sum(1, keepdim=True)
        return (images * 255).round().clamp(0, 255).to(torch.uint8)

    def decode(self, target: UInt8[Tensor, "b c px px"]) -> Float[Tensor, "b 3 px px"]:
        self.check_target(target)
        return (target.to(torch.float32) / 255).expand(-1, 3, -1, -1).contiguous()
