import numpy as np
import pytest
import torch

from components.codecs.config import NoneConfig


@pytest.mark.parametrize("channels", [1, 3])
def test_every_gray_byte_survives(channels: int) -> None:
    codec = NoneConfig(kind="none", channels=channels, px=16).build()
    stored = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    images = (stored.float() / 255).expand(1, 3, 16, 16)
    target = codec.encode(images)
    assert torch.equal(target, stored.expand(1, channels, 16, 16))
    assert torch.equal(codec.decode(target), images)


def test_gray_is_pillows() -> None:
    from PIL import Image

    rgb = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    codec = NoneConfig(kind="none", channels=1, px=16).build()
    ours = codec.encode(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255)[0, 0].int()
    theirs = torch.from_numpy(np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.int32))
    assert int((ours - theirs).abs().max()) <= 1


def test_values_outside_the_range_are_clamped() -> None:
    codec = NoneConfig(kind="none", channels=3, px=1).build()
    assert codec.encode(torch.tensor([-0.5, 0.5, 1.5]).view(1, 3, 1, 1)).flatten().tolist() == [0, 128, 255]
