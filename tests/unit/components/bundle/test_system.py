"""RCG draws what the sample stage draws, by any split; every way to ask for images; and each mistake has a name."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from components.bundle.system import RCG, Overrides
from components.cache.samples import Samples
from components.encoders import load_encoder
from components.errors import ArtifactError, ConfigError, DataError, MissingError
from components.images.pictures import to_uint8
from components.pixels import load_pixels
from components.rng import image_rng
from flows.stages.sample.params import SampleParams
from flows.stages.sample.run import run as run_sample
from tests.support.bundles import bundle_params, make_bundle
from tests.support.folders import DIM, PX, FolderArtifact, FolderInputs, draw_bars
from tests.support.toys import worker


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("rcg")).root


@pytest.fixture(scope="module")
def rcg(bundle: Path) -> RCG:
    return RCG.load(bundle)


def _picture(i: int) -> torch.Tensor:
    return torch.from_numpy(draw_bars(4)[0][i]).permute(2, 0, 1) / 255


@pytest.mark.parametrize(
    ("condition", "class_rdm"),
    [("representation", False), ("representation", True), ("none", False), ("class", False), ("cluster", False)],
)
def test_draws_the_same_images_as_the_sample_stage(tmp_path: Path, condition: str, class_rdm: bool) -> None:
    rcg = RCG.load(make_bundle(tmp_path, condition, class_rdm=class_rdm).root)
    how = bundle_params().sampling
    params = SampleParams(
        numerics=1, n=7, batch_size=3, seed=11, representations="rdm", grid=4, rdm=how.rdm, pixels=how.pixels
    )
    out = FolderArtifact(tmp_path / "samples")
    run_sample(params, FolderInputs(tmp_path / "parents"), out, worker(tmp_path))
    expected = Samples(out).images(np.arange(7))
    drawn = to_uint8(rcg.sample(7, 11))
    assert (drawn == expected).all()
    assert len(np.unique(drawn.reshape(7, -1), axis=0)) == 7
    assert (to_uint8(rcg.sample(4, 11, first=3)) == expected[3:]).all()


def test_variations_are_images_of_the_pictures_representation(rcg: RCG, bundle: Path) -> None:
    z = load_encoder(FolderArtifact(bundle / "encoder"))(_picture(0)[None])
    pixels, noise = load_pixels(FolderArtifact(bundle / "pixels")), image_rng(5, 0, 3, stream="pixels")
    target = pixels.sample({"representation": z.expand(3, -1)}, rcg.card.sampling.pixels, noise)
    drawn = rcg.variations(_picture(0), 3, 5)
    assert torch.equal(drawn, target.expand(-1, 3, -1, -1) / 255)
    assert not torch.equal(drawn[0], drawn[1]), "each has its own noise"


def test_interpolation_mixes_representations_linearly_and_keeps_the_noise(
    rcg: RCG, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = {0.0: torch.tensor([[1.5, -1.5, 0.5, -0.5] * 2]), 1.0: torch.tensor([[1.5, 1.5, -0.5, -0.5] * 2])}
    monkeypatch.setattr(rcg, "represent", lambda image: z[float(image.mean())])
    mixed = rcg.interpolate(torch.zeros(3, PX, PX), torch.ones(3, PX, PX), 5, 2)
    by_hand = [0.75 * z[0.0] + 0.25 * z[1.0], 0.5 * z[0.0] + 0.5 * z[1.0]]
    assert by_hand[1].std() < 0.9 * z[0.0].std(), "a mix is fed as it is, not standardized again"
    for i, expected in ((0, z[0.0]), (1, by_hand[0]), (2, by_hand[1]), (4, z[1.0])):
        drawn = rcg.from_representations(expected, 2, numbers=[0])
        torch.testing.assert_close(mixed[i : i + 1], drawn, atol=1 / 255, rtol=0)
    assert not torch.equal(mixed[0], mixed[4])


def test_overrides_change_the_images_and_the_defaults_do_not(rcg: RCG) -> None:
    plain = rcg.sample(3, 0)
    default = rcg.card.sampling.pixels
    assert torch.equal(rcg.sample(3, 0, overrides=Overrides(guidance=default.guidance, steps=default.steps)), plain)
    assert not torch.equal(rcg.sample(3, 0, overrides=Overrides(guidance=2.0)), plain)
    assert not torch.equal(rcg.sample(3, 0, overrides=Overrides(steps=2)), plain)
    torch.testing.assert_close(rcg.sample(3, 0, overrides=Overrides(batch_size=1)), plain, atol=1 / 255, rtol=0)


def test_a_class_can_be_asked_for_by_name(tmp_path: Path) -> None:
    rcg = RCG.load(make_bundle(tmp_path, "class").root)
    assert rcg.classes == ("bar", "post")
    bars, posts = (rcg.sample(4, 0, label=rcg.class_index(name)) for name in ("bar", "post"))
    assert not torch.equal(bars, posts)
    with pytest.raises(ConfigError, match=r"unknown class[\s\S]*cross[\s\S]*bar, post"):
        rcg.class_index("cross")
    with pytest.raises(ConfigError, match="does not look at representations"):
        rcg.from_representations(torch.zeros(1, DIM), 0, numbers=[0])


def test_class_of_a_class_conditional_rdm(tmp_path: Path) -> None:
    rcg = RCG.load(make_bundle(tmp_path, class_rdm=True).root)
    assert rcg.classes == ("bar", "post")
    assert not torch.equal(rcg.sample(2, 0, label=0), rcg.sample(2, 0, label=1))


def test_class_on_a_model_without_classes_is_refused(rcg: RCG) -> None:
    with pytest.raises(ConfigError, match=r"does not take a class[\s\S]*fix:"):
        rcg.class_index("bar")
    with pytest.raises(ConfigError, match="does not take a class"):
        rcg.sample(1, 0, label=0)


def test_guidance_without_a_trained_null_is_refused(tmp_path: Path) -> None:
    rcg = RCG.load(make_bundle(tmp_path, "none").root)
    with pytest.raises(ConfigError, match="guidance needs a condition"):
        rcg.sample(1, 0, overrides=Overrides(guidance=1.0))


@pytest.mark.parametrize("bad", [Overrides(guidance=-1.0), Overrides(steps=0), Overrides(steps=5000)])
def test_impossible_options_are_named(rcg: RCG, bad: Overrides) -> None:
    with pytest.raises(ConfigError, match=r"guidance|steps"):
        rcg.sample(1, 0, overrides=bad)


def test_without_encoder_only_pictures_are_out_of_reach(tmp_path: Path) -> None:
    rcg = RCG.load(make_bundle(tmp_path, with_encoder=False).root)
    assert rcg.sample(1, 0).shape == (1, 3, PX, PX)
    with pytest.raises(ConfigError, match=r"no encoder[\s\S]*with_encoder"):
        rcg.variations(_picture(0), 1, 0)


def test_a_picture_file_is_read_as_the_training_images_were(rcg: RCG) -> None:
    from PIL import Image

    wide = np.zeros((2 * PX, 4 * PX, 4), np.uint8)
    wide[:, PX : 3 * PX] = (255, 0, 0, 255)  # the center square; all else is transparent
    buffer = io.BytesIO()
    Image.fromarray(wide).save(buffer, format="PNG")
    image = rcg.read_picture(buffer.getvalue())
    assert image.shape == (3, PX, PX)
    inner = image[:, :, 1:-1]  # the outer columns blend with the white that transparency was laid on
    torch.testing.assert_close(inner, torch.tensor([1.0, 0, 0])[:, None, None].expand_as(inner))
    with pytest.raises(DataError, match="not a picture"):
        rcg.read_picture(b"text")


def test_a_blank_representation_is_refused(rcg: RCG, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rcg.encoder, "network", torch.nn.Sequential(torch.nn.Flatten(), _Constant()))
    with pytest.raises(DataError, match="no representation"):
        rcg.represent(_picture(0))


class _Constant(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(x), DIM)


def test_damaged_and_foreign_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="not a bundle"):
        RCG.load(tmp_path)
    bundle = make_bundle(tmp_path).root
    card = bundle / "rcg.json"
    values = json.loads(card.read_text())
    card.write_text(json.dumps(values | {"schema_version": 99}))
    with pytest.raises(ArtifactError, match=r"does not read[\s\S]*99"):
        RCG.load(bundle)
    card.write_text(json.dumps(values | {"sampling": {}}))
    with pytest.raises(ArtifactError, match="damaged"):
        RCG.load(bundle)
    card.write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        RCG.load(bundle)
    card.write_text(json.dumps(values))
    (bundle / "pixels/weights.safetensors").unlink()
    with pytest.raises(MissingError, match=r"incomplete[\s\S]*pixels/weights"):
        RCG.load(bundle)
