"""Images as sequences: the patch projection and fixed 2-D sine-cosine positions."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from components.errors import ConfigError


class PatchEmbed(nn.Module):
    """Linear projection of square patches, as a strided convolution; tokens in raster order."""

    def __init__(self, image_px: int, patch_px: int, channels: int, dim: int) -> None:
        super().__init__()
        if image_px % patch_px:
            raise ConfigError(
                "the image does not split evenly into patches",
                got=f"image {image_px} px, patch {patch_px} px",
                fix="choose a patch size that divides the image size",
            )
        self.side = image_px // patch_px
        self.proj = nn.Conv2d(channels, dim, patch_px, stride=patch_px)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n dim"]:
        out: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return out


def sincos_positions(side: int, dim: int, *, temperature: float = 10000.0) -> Float[Tensor, "n dim"]:
    """Positions of a side x side raster: sin(row), cos(row), sin(column), cos(column), a quarter of dim each.

    Shapes: -> (side * side, dim). Paper: 2104.02057 (MoCo v3). Raises: ConfigError unless 4 divides dim.
    Differs: none; the reference names the row "w" and the column "h".
    """
    if dim % 4:
        raise ConfigError("sine-cosine positions need a width that is a multiple of 4", got=dim, fix="change the width")
    omega = temperature ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    index = torch.arange(side, dtype=torch.float64)
    angle = index[:, None] * omega  # (side, dim / 4)
    wave = torch.cat([angle.sin(), angle.cos()], 1)  # (side, dim / 2)
    rows, columns = wave[:, None].expand(side, side, -1), wave[None].expand(side, side, -1)
    return torch.cat([rows, columns], 2).reshape(side * side, dim).to(torch.float32)
