"""Pictures in rows, and under each row what was asked for."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from components.images.pictures import BACKGROUND, GAP, grid

_SIZE_PX, _MARGIN_PX = 15, 6
_LEAST_WIDTH_PX = 240
"""So that a caption has room under a single small picture, too."""
_MOST_LINES = 3
_INK = 40


def captioned_rows(rows: Sequence[tuple[str, np.ndarray]], *, columns: int | None = None) -> np.ndarray:
    """One picture of all rows, each a caption and its images (n, h, w, 3) uint8, broken after `columns` images.

    A caption is broken into at most three lines; characters that the font lacks are boxes. Shapes: -> (H, W, 3) uint8.
    """
    bands = [grid(images, columns=columns or len(images)) for _, images in rows]
    width = max(_LEAST_WIDTH_PX, *(band.shape[1] for band in bands))
    parts = []
    for (caption, _), band in zip(rows, bands, strict=True):
        padding = ((0, 0), (0, width - band.shape[1]), (0, 0))
        parts += [np.pad(band, padding, constant_values=BACKGROUND), _strip(caption, width)]
    return np.concatenate(parts)


def _strip(caption: str, width: int) -> np.ndarray:
    """The caption in black on white. Shapes: -> (h, width, 3) uint8."""
    font = ImageFont.load_default(_SIZE_PX)
    lines = broken_into_lines(caption, width - 2 * GAP, font)
    height = round(1.3 * _SIZE_PX * len(lines)) + _MARGIN_PX
    strip = Image.new("RGB", (width, height), (BACKGROUND,) * 3)
    draw = ImageDraw.Draw(strip)
    for i, line in enumerate(lines):
        draw.text((GAP, round(1.3 * _SIZE_PX * i)), line, fill=(_INK,) * 3, font=font)
    return np.asarray(strip)


def broken_into_lines(caption: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Lines that fit the width, between words where that is possible; the last one ends in … if more is to come."""
    lines, rest = list[str](), caption or "(no text)"
    while rest and len(lines) < _MOST_LINES:
        n = len(rest)
        while n > 1 and font.getlength(rest[:n]) > width:
            n -= 1
        if n < len(rest) and " " in rest[:n]:
            n = rest[:n].rindex(" ")
        lines.append(rest[:n])
        rest = rest[n:].strip()
    if rest:
        lines[-1] = lines[-1][:-1].rstrip() + "…"
    return lines
