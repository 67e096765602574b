"""Edits: known pixels stay exactly, whatever the codec; masks in every form; each mistake has a name."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from components.bundle.bundle import Bundle
from components.bundle.edits import blended, read_edit
from components.bundle.request import Edit, Picture, Request
from components.bundle.system import System, SystemSampling
from components.codecs.config import VqganConfig
from components.errors import ConfigError, DataError, ShapeError
from components.fields import mask_name
from components.generators.config import GeneratorData
from components.generators.sampling import DiffusionSampling, MaskedSampling
from components.images.config import DecodeRecipe
from components.images.pictures import to_float, to_uint8
from components.nn.vit import seeded_init
from components.pixels.dit import DitConfig
from components.pixels.mage import MageConfig
from components.rng import image_rng
from components.target import KNOWN
from tests.support.bundles import make_bundle
from tests.support.folders import DIM, PX, draw_bars, randomize

RECIPE = DecodeRecipe(background=(255, 255, 255), max_pixels=10**6)
LEFT = np.arange(PX) < PX // 2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(make_bundle(tmp_path_factory.mktemp("rcg")).root)


def _file(pixels: np.ndarray, name: str = "it") -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return Picture(buffer.getvalue(), name)


def _bars(i: int) -> np.ndarray:
    picture: np.ndarray = draw_bars(4)[0][i]
    return picture


def _half(scale: int = 1) -> np.ndarray:
    """White, to be filled, on the right."""
    mask = np.zeros((PX * scale, PX * scale), np.uint8)
    mask[:, PX * scale // 2 :] = 255
    return mask


def _edit(**changes: Any) -> Edit:
    return Edit(**{"image": _file(_bars(0), "picture.png"), "mask": _file(_half(), "mask.png")} | changes)


def test_known_pixels_are_exact_and_the_others_are_made(bundle: Bundle) -> None:
    made = to_uint8(bundle.sample(Request(n=3, seed=1, edit=_edit())))
    assert (made[:, :, LEFT] == _bars(0)[:, LEFT]).all()
    assert len(np.unique(made[:, :, ~LEFT].reshape(3, -1), axis=0)) == 3
    assert (made[:, :, ~LEFT] != _bars(0)[:, ~LEFT]).any()


@pytest.fixture
def seeing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """With an encoder that tells pictures apart, unlike one of random weights."""

    def represent(picture: Picture) -> torch.Tensor:
        return torch.randn(1, DIM, generator=torch.Generator().manual_seed(int(picture.sha256[:8], 16)))

    monkeypatch.setattr(bundle.system, "_represent", represent)
    return bundle


def test_what_was_erased_is_not_looked_at_when_the_representation_is_free(seeing: Bundle) -> None:
    other = _bars(0).copy()
    other[:, ~LEFT] = 77
    free, own = (
        [to_uint8(seeing.sample(Request(seed=1, edit=_edit(image=_file(x), free=free)))) for x in (_bars(0), other)]
        for free in (True, False)
    )
    assert (free[0] == free[1]).all()
    assert (own[0] != own[1]).any(), "the picture's own representation tells of all of it"


def test_the_representation_is_the_pictures_own_unless_another_condition_is_given(seeing: Bundle) -> None:
    like = _file(_bars(1))
    own, named, other = (
        seeing.sample(Request(seed=1, edit=_edit(), like=given)) for given in (None, _file(_bars(0)), like)
    )
    assert torch.equal(own, named)
    assert not torch.equal(own, other)


def test_guidance_keeps_what_is_known(bundle: Bundle) -> None:
    plain = to_uint8(bundle.sample(Request(seed=1, edit=_edit())))
    guided = to_uint8(bundle.sample(Request(seed=1, guidance=3.0, edit=_edit(repaint=2))))
    assert (guided[:, :, LEFT] == plain[:, :, LEFT]).all()
    assert (guided != plain).any()


def test_repainting_is_another_way_to_sample_and_keeps_what_is_known(bundle: Bundle) -> None:
    once, more = (to_uint8(bundle.sample(Request(seed=1, edit=_edit(repaint=times)))) for times in (None, 4))
    assert (once != more).any()
    assert (more[:, :, LEFT] == _bars(0)[:, LEFT]).all()
    sampling = bundle.provenance(Request(edit=_edit(repaint=4))).sampling
    assert sampling["pixels"]["repaint"] == 4
    assert "repaint" not in bundle.provenance(Request(edit=_edit())).sampling["pixels"]


@pytest.mark.parametrize("scale", [1, 5])
def test_a_mask_is_white_or_transparent_in_any_size(scale: int) -> None:
    white = _half(scale)
    clear = np.full((*white.shape, 4), 255, np.uint8)  # a white picture with a part erased
    clear[:, :, 3] = 255 - white
    for mask in (white, clear, np.repeat(white[:, :, None], 3, 2)):
        seen = read_edit(_edit(mask=_file(mask)), RECIPE, PX)
        assert (seen.known[0].numpy() == LEFT).all()


def test_mask_and_picture_are_cut_alike_and_a_touched_pixel_is_filled() -> None:
    wide = np.zeros((4 * PX, 8 * PX, 3), np.uint8)
    wide[:, 2 * PX : 6 * PX] = 200  # the center square
    mask = np.zeros(wide.shape[:2], np.uint8)
    mask[:, : 2 * PX + 1] = 255  # one column of the square's first pixels, of four
    seen = read_edit(_edit(image=_file(wide), mask=_file(mask)), RECIPE, PX)
    assert (seen.known[0].numpy() == (np.arange(PX) > 0)).all()
    assert np.abs(to_uint8(seen.image).astype(int) - 200).max() < 40, "bicubic edges overshoot a little"


def test_gray_masks_are_taken_by_half_and_told(caplog: pytest.LogCaptureFixture) -> None:
    gray = np.where(_half() > 0, 140, 90).astype(np.uint8)
    seen = read_edit(_edit(mask=_file(gray, "soft.png")), RECIPE, PX)
    assert (seen.known[0].numpy() == LEFT).all()
    assert "soft.png is not black and white alone: 100.0%" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask": _file(np.full((PX, PX), 255, np.uint8))}, r"leaves nothing of the picture[\s\S]*rcg sample"),
        ({"mask": _file(np.zeros((PX, PX), np.uint8))}, r"leaves nothing to fill[\s\S]*white"),
        ({"mask": _file(_half()[:4])}, r"another aspect[\s\S]*8 x 4[\s\S]*8 x 8"),
        ({"image": _file(_bars(0)[:7, :7]), "mask": _file(_half()[:7, :7])}, r"smaller than[\s\S]*7 x 7[\s\S]*8 x 8"),
        ({"mask": Picture(b"text", "note.txt")}, r"note\.txt cannot be used"),
    ],
)
def test_mistakes_are_named(bundle: Bundle, changes: dict[str, Picture], words: str) -> None:
    with pytest.raises(DataError, match=words):
        bundle.sample(Request(edit=_edit(**changes)))


def test_without_an_encoder_an_edit_has_to_be_free(tmp_path: Path) -> None:
    bundle = Bundle.load(make_bundle(tmp_path, with_encoder=False).root)
    with pytest.raises(ConfigError, match=r"no encoder[\s\S]*--free"):
        bundle.sample(Request(edit=_edit()))
    assert bundle.sample(Request(edit=_edit(free=True))).shape == (1, 3, PX, PX)


def _coded(space: str) -> System:
    """A system over a tiny VQGAN, without conditions."""
    codec = VqganConfig.tiny().model_copy(update={"space": space})
    model: Any = MageConfig.tiny() if space == "tokens" else DitConfig.tiny()
    how: Any = MaskedSampling.tiny() if space == "tokens" else DiffusionSampling.tiny()
    with seeded_init(0):
        made = codec.build().eval()
        data = GeneratorData(target=made.spec, dim=8, classes=None)
        pixels = model.model_copy(update={"conditions": ()}).build(data).eval()
    randomize(pixels)
    sampling = SystemSampling(seed=0, batch_size=2, rdm=None, pixels=how)
    return System(rdm=None, pixels=pixels, codec=made, sampling=sampling, recipe=RECIPE)


@pytest.mark.parametrize("space", ["latents", "tokens"])
def test_known_pixels_are_exact_through_a_codec(space: str) -> None:
    system = _coded(space)
    batch = next(system.batches(Request(n=2, seed=3, edit=_edit())))
    where = batch[mask_name(KNOWN)]
    assert 0 < int(where[0].sum()) < where[0].numel()
    kept = where if space == "tokens" else where[:, None].expand_as(batch["target"])
    assert torch.equal(batch["target"][kept], batch[KNOWN][kept])
    assert not torch.equal(batch["target"][~kept], batch[KNOWN][~kept])
    made = to_uint8(system.images(batch))
    assert (made[:, :, LEFT] == _bars(0)[:, LEFT]).all()


@pytest.mark.parametrize("space", ["latents", "tokens"])
def test_a_codec_sees_nothing_of_what_was_erased(space: str) -> None:
    system, other = _coded(space), _bars(0).copy()
    other[:, ~LEFT] = 255 - other[:, ~LEFT]
    made = [to_uint8(system.sample(Request(seed=3, edit=_edit(image=_file(x))))) for x in (_bars(0), other)]
    assert (made[0] == made[1]).all()
    over = read_edit(_edit(), RECIPE, PX).drawn_over()
    assert torch.equal(over[..., :4], to_float(_bars(0)[None])[..., :4])
    known = _bars(0)[:, LEFT] / 255
    assert known.min() - 1e-6 <= float(over[..., 4:].min()) <= float(over[..., 4:].max()) <= known.max() + 1e-6


def test_a_blend_meets_the_picture_at_the_edge_and_fades() -> None:
    picture, images = torch.full((1, 3, 32, 32), 0.6), torch.full((1, 3, 32, 32), 0.4)
    known = (torch.arange(32) < 16).expand(1, 32, 32)
    picture[..., 16:] = 0.0  # was erased, and must not come back
    row = blended(images, picture, known, 2)[0, 0, 16]
    assert (row[:16] == 0.6).all()
    assert float(row[16]) == pytest.approx(0.57, abs=0.04)
    assert float(row[31]) == pytest.approx(0.4, abs=1e-3)
    assert (row[16:].diff() <= 1e-6).all()


def test_tokens_that_are_known_in_unequal_numbers_are_refused() -> None:
    pixels = _coded("tokens").pixels
    where = torch.zeros(2, *pixels.spec.shape, dtype=torch.bool)
    where[0, 0, 0] = True
    given = {KNOWN: torch.zeros(2, *pixels.spec.shape, dtype=torch.int32), mask_name(KNOWN): where}
    with pytest.raises(ShapeError, match="equally many"):
        pixels.sample(given, MaskedSampling.tiny(), image_rng(0, 0, 2, stream="pixels"))
    with pytest.raises(ShapeError, match="does not fit the target"):
        pixels.sample(given | {mask_name(KNOWN): where[:, :1]}, MaskedSampling.tiny(), image_rng(0, 0, 2, stream="x"))


def test_a_picture_of_the_models_size_is_seen_byte_by_byte() -> None:
    assert torch.equal(read_edit(_edit(), RECIPE, PX).image, to_float(_bars(0)[None]))
