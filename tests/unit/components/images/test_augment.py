import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from components.images.augment import augment
from components.images.config import (
    Augmentation,
    AugmentConfig,
    Blur,
    ColorJitter,
    Crop,
    Erase,
    Flip,
    Grayscale,
    Noise,
    Solarize,
    Warp,
)
from components.rng import BatchRng

MEMBERS = get_args(get_args(AugmentConfig)[0])
STILL = Warp(kind="warp", rotate_deg=0, scale=(1, 1), stretch=0, shear=0, shift=0, elastic=0, fill=0.0)


class Fixed:
    """Draws given numbers: every call to uniform pops the next."""

    def __init__(self, rows: int, *values: float) -> None:
        self.rows, self.values = rows, list(values)

    def uniform(self, *shape: int) -> Tensor:
        return torch.full((self.rows, *shape), self.values.pop(0))

    def normal(self, *shape: int) -> Tensor:
        return torch.full((self.rows, *shape), self.values.pop(0))

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.full((self.rows, *shape), int(self.values.pop(0)) % high)


def _images(n: int = 6, px: int = 9) -> Tensor:
    return torch.rand(n, 3, px, px, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.__name__)
def test_every_augmentation(member: type[Augmentation]) -> None:
    step, images = member.tiny(), _images()
    out = augment(images, [step], BatchRng(1, 6))
    assert out.shape == images.shape
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-6
    assert not torch.equal(out, images)
    assert torch.equal(out, augment(images, [step], BatchRng(1, 6)))
    assert not torch.equal(out, augment(images, [step], BatchRng(2, 6)))
    torch.testing.assert_close(images, _images(), msg="the input was changed in place")
    parts = [augment(images[a:b], [step], BatchRng(1, 6, start=a, stop=b)) for a, b in ((0, 2), (2, 6))]
    torch.testing.assert_close(torch.cat(parts), out)


def test_steps_run_in_order() -> None:
    images, rng = _images(), BatchRng(4, 6)
    steps = (Flip(kind="flip", prob=1.0), Solarize(kind="solarize", prob=1.0, threshold=0.5))
    flipped = images.flip(-1)
    torch.testing.assert_close(augment(images, steps, rng), torch.where(flipped >= 0.5, 1 - flipped, flipped))
    assert augment(images, (), rng) is images


def test_crop_reads_the_drawn_window() -> None:
    # area 1/4, aspect 1: half the side; center draws 1, 1: the lower right corner
    step = Crop(kind="crop", area=(0.25, 0.25), aspect=(1.0, 1.0))
    ramp = torch.arange(8.0).expand(1, 3, 8, 8) / 8
    out = augment(ramp, [step], Fixed(1, 0.5, 0.5, 1.0))
    centers = [(4 + (i + 0.5) / 2 - 0.5) / 8 for i in range(8)]
    expected = torch.tensor([min(max(c, 0), 7 / 8) for c in centers])
    torch.testing.assert_close(out[0, 0, 3], expected)


def test_a_warp_without_range_is_the_identity() -> None:
    torch.testing.assert_close(augment(_images(), [STILL], BatchRng(0, 6)), _images(), rtol=0, atol=1e-5)


def test_warp_turns_by_the_drawn_angle() -> None:
    step = STILL.model_copy(update={"rotate_deg": 90.0})
    images = _images(2)
    out = augment(images, [step], Fixed(2, 1.0, 0.5, 0.5, 0.5, 0.5))
    torch.testing.assert_close(out, images.rot90(1, (-2, -1)), rtol=0, atol=1e-4)


def test_warp_shifts_by_a_share_of_the_side_and_fills() -> None:
    step = STILL.model_copy(update={"shift": 0.25, "fill": 0.5})
    images = _images(1, 8)
    out = augment(images, [step], Fixed(1, 0.5, 0.5, 0.5, 0.5, 1.0))  # reads a quarter to the right and below
    torch.testing.assert_close(out[:, :, :6, :6], images[:, :, 2:, 2:], rtol=0, atol=1e-5)
    torch.testing.assert_close(out[:, :, 6:], torch.full((1, 3, 2, 8), 0.5), rtol=0, atol=1e-5)


def test_warp_magnifies_by_the_drawn_factor() -> None:
    step = STILL.model_copy(update={"scale": (2.0, 2.0)})
    image = torch.zeros(1, 3, 8, 8)
    image[:, :, 3:5, 3:5] = 1.0
    out = augment(image, [step], Fixed(1, 0.5, 0.5, 0.5, 0.5, 0.5))
    assert out[0, 0].sum().item() == pytest.approx(4 * 4, abs=0.1)  # twice as wide, twice as high


def test_elastic_bends_smoothly() -> None:
    step = STILL.model_copy(update={"elastic": 0.1})
    out = augment(_images(1, 8), [step], Fixed(1, 0.5, 0.5, 0.5, 0.5, 0.5, 1.25))  # an even displacement of 1/8
    torch.testing.assert_close(out[:, :, :7, :7], _images(1, 8)[:, :, 1:, 1:], rtol=0, atol=1e-4)


def test_color_jitter_by_formula() -> None:
    step = ColorJitter(kind="color_jitter", prob=1.0, brightness=0.4, contrast=0.0, saturation=0.5, hue=0.0)
    images = _images(2) * 0.5
    out = augment(images, [step], Fixed(2, 1.0, 0.5, 0.0, 0.5, 0.0))  # brightness 1.4, saturation 0.5
    bright = images * 1.4
    gray = 0.299 * bright[:, :1] + 0.587 * bright[:, 1:2] + 0.114 * bright[:, 2:]
    torch.testing.assert_close(out, (bright + gray) / 2)


def test_hue_turns_a_third_of_the_circle_into_the_next_channel() -> None:
    step = ColorJitter(kind="color_jitter", prob=1.0, brightness=0, contrast=0, saturation=0, hue=1 / 3)
    out = augment(_images(2), [step], Fixed(2, 0.5, 0.5, 0.5, 1.0, 0.0))
    torch.testing.assert_close(out, _images(2)[:, [2, 0, 1]])


def test_grayscale_makes_channels_equal() -> None:
    out = augment(_images(), [Grayscale(kind="grayscale", prob=1.0)], BatchRng(0, 6))
    assert torch.equal(out[:, 0], out[:, 2])


def test_blur_spreads_a_point_as_a_gaussian() -> None:
    image = torch.zeros(1, 3, 9, 9)
    image[:, :, 4, 4] = 1.0
    out = augment(image, [Blur(kind="blur", prob=1.0, sigma_px=(1.0, 1.0))], BatchRng(0, 1))
    assert out[0, 0].sum().item() == pytest.approx(1.0, abs=1e-5)
    assert out[0, 0, 4, 5].item() / out[0, 0, 4, 4].item() == pytest.approx(math.exp(-0.5), rel=1e-4)


def test_noise_is_equal_in_all_channels_and_has_the_drawn_strength() -> None:
    gray = torch.full((1, 3, 100, 100), 0.5)
    out = augment(gray, [Noise(kind="noise", std=(0.1, 0.1))], BatchRng(0, 1))
    assert torch.equal(out[:, 0], out[:, 1])
    assert out.std().item() == pytest.approx(0.1, rel=0.05)


def test_erase_paints_one_rectangle() -> None:
    step = Erase(kind="erase", prob=1.0, side=(0.5, 0.5), fill=0.25)
    out = augment(torch.ones(1, 3, 8, 8), [step], Fixed(1, 0.5, 1.0, 0.5))  # size, place, whether
    expected = torch.ones(8, 8)
    expected[4:, 4:] = 0.25
    assert torch.equal(out[0, 1], expected)


@pytest.mark.parametrize("prob", [0.0, 0.3])
def test_probability_picks_images(prob: float) -> None:
    images = torch.rand(2000, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    out = augment(images, [Flip(kind="flip", prob=prob)], BatchRng(0, 2000))
    changed = (out != images).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(prob, abs=0.04)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "flip", "prob": 1.5},
        {"kind": "crop", "area": (0.0, 1.0), "aspect": (0.5, 2.0)},
        {"kind": "crop", "area": (0.9, 0.5), "aspect": (0.5, 2.0)},
        {"kind": "blur", "prob": 0.5, "sigma_px": (0.0, 1.0)},
        {"kind": "noise", "std": (-0.1, 0.1)},
        {"kind": "crop", "area": (0.5, 1.0)},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    from pydantic import TypeAdapter, ValidationError

    with pytest.raises(ValidationError):
        TypeAdapter(AugmentConfig).validate_python(wrong)
