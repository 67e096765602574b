"""A system samples what the sample stage samples; every way to ask for images; each mistake has a name."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.bundle.bundle import Bundle
from components.bundle.request import Picture, Request
from components.cache.samples import Samples
from components.encoders.base import load_encoder
from components.errors import ArtifactError, ConfigError, DataError, MissingError
from components.images.pictures import png_bytes, to_uint8
from components.pixels import load_pixels
from components.rng import image_rng
from flows.stages.sample.params import SampleParams
from flows.stages.sample.run import run as run_sample
from tests.support.bundles import SAMPLING, make_bundle
from tests.support.folders import DIM, PX, FolderArtifact, FolderInputs, draw_bars
from tests.support.toys import worker


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("rcg")).root


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return Bundle.load(folder)


def _picture(i: int) -> Picture:
    return Picture(png_bytes(draw_bars(4)[0][i]))


@pytest.mark.parametrize(
    ("condition", "class_rdm"),
    [("representation", False), ("representation", True), ("none", False), ("class", False), ("cluster", False)],
)
def test_samples_the_same_images_as_the_sample_stage(tmp_path: Path, condition: str, class_rdm: bool) -> None:
    bundle = Bundle.load(make_bundle(tmp_path, condition, class_rdm=class_rdm).root)
    representations = "rdm" if condition == "representation" else None
    how = {"rdm": bundle.card.sampling.rdm, "pixels": SAMPLING.pixels}
    params = SampleParams(numerics=1, n=7, batch_size=3, seed=11, representations=representations, grid=4, **how)
    out = FolderArtifact(tmp_path / "samples")
    run_sample(params, FolderInputs(tmp_path / "parents"), out, worker(tmp_path))
    expected = Samples(out).images(np.arange(7))
    sampled = to_uint8(bundle.sample(Request(n=7, seed=11)))
    assert (sampled == expected).all()
    assert len(np.unique(sampled.reshape(7, -1), axis=0)) == 7
    assert (to_uint8(bundle.sample(Request(n=4, seed=11, first=3))) == expected[3:]).all()


def test_some_positions_of_a_request_are_sampled_alone(bundle: Bundle) -> None:
    request = Request(n=7, seed=2)
    batches = list(bundle.system.batches(request, range(3, 6)))
    assert [len(batch["target"]) for batch in batches] == [3]
    assert torch.equal(bundle.system.images(batches[0]), bundle.sample(request)[3:6])


def test_like_samples_images_of_the_pictures_representation(bundle: Bundle, folder: Path) -> None:
    shown = torch.from_numpy(draw_bars(4)[0][0]).permute(2, 0, 1) / 255
    z = load_encoder(FolderArtifact(folder / "encoder"))(shown[None])
    pixels, noise = load_pixels(FolderArtifact(folder / "pixels")), image_rng(5, 0, 3, stream="pixels")
    target = pixels.sample({"representation": z.expand(3, -1)}, bundle.card.sampling.pixels, noise)
    sampled = bundle.sample(Request(n=3, seed=5, like=_picture(0)))
    assert torch.equal(sampled, target.expand(-1, 3, -1, -1) / 255)
    assert not torch.equal(sampled[0], sampled[1]), "each has its own noise"


def test_a_path_mixes_representations_linearly_and_keeps_the_noise(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (1.5, -1.5, 0.5, -0.5) * 2, (1.5, 1.5, -0.5, -0.5) * 2
    z = {"a": torch.tensor([a]), "b": torch.tensor([b])}
    monkeypatch.setattr(bundle.system, "_represent", lambda picture: z[picture.name])
    mixed = bundle.sample(Request(n=5, seed=2, between=(Picture(b"", "a"), Picture(b"", "b"))))
    half = tuple((0.5 * z["a"] + 0.5 * z["b"])[0].tolist())
    assert np.std(half) < 0.9 * np.std(a), "a mix is fed as it is, not standardized again"
    for i, expected in ((0, a), (2, half), (4, b)):
        alone = bundle.sample(Request(seed=2, representation=expected))
        torch.testing.assert_close(mixed[i : i + 1], alone, atol=1 / 255, rtol=0)
    assert not torch.equal(mixed[0], mixed[4])


def test_a_share_mixes_two_with_noise_of_each_image(bundle: Bundle) -> None:
    two = _picture(0), _picture(1)
    for share, end in ((0.0, two[0]), (1.0, two[1])):
        mixed = bundle.sample(Request(n=2, seed=1, between=two, share=share))
        torch.testing.assert_close(mixed, bundle.sample(Request(n=2, seed=1, like=end)), atol=1e-2, rtol=0)
        assert not torch.equal(mixed[0], mixed[1])


def test_options_of_a_request_change_the_images_and_the_defaults_do_not(bundle: Bundle) -> None:
    plain = bundle.sample(Request(n=3))
    default = bundle.card.sampling.pixels
    assert torch.equal(bundle.sample(Request(n=3, guidance=default.guidance, steps=default.steps)), plain)
    assert not torch.equal(bundle.sample(Request(n=3, guidance=2.0)), plain)
    assert not torch.equal(bundle.sample(Request(n=3, steps=2)), plain)
    torch.testing.assert_close(bundle.sample(Request(n=3, batch_size=1)), plain, atol=1 / 255, rtol=0)


def test_a_class_can_be_asked_for_by_name(tmp_path: Path) -> None:
    bundle = Bundle.load(make_bundle(tmp_path, "class").root)
    assert bundle.system.classes == ("bar", "post")
    bars, posts = (bundle.sample(Request(n=4, class_name=name)) for name in ("bar", "post"))
    assert not torch.equal(bars, posts)
    with pytest.raises(ConfigError, match=r"unknown class[\s\S]*cross[\s\S]*bar, post"):
        bundle.sample(Request(class_name="cross"))
    with pytest.raises(ConfigError, match="no condition on representations"):
        bundle.sample(Request(representation=(0.0,) * DIM))


def test_class_of_a_class_conditional_rdm(tmp_path: Path) -> None:
    bundle = Bundle.load(make_bundle(tmp_path, class_rdm=True).root)
    assert bundle.system.classes == ("bar", "post")
    bar, post = (bundle.sample(Request(n=2, class_name=name)) for name in ("bar", "post"))
    assert not torch.equal(bar, post)


def test_class_on_a_model_without_classes_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match=r"does not take a class[\s\S]*fix:"):
        bundle.sample(Request(class_name="bar"))


def test_text_on_a_model_without_it_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match=r"does not take a text[\s\S]*a red apple[\s\S]*fix:"):
        bundle.sample(Request(text=("a red apple",)))


def test_guidance_without_a_trained_null_is_refused(tmp_path: Path) -> None:
    bundle = Bundle.load(make_bundle(tmp_path, "none").root)
    with pytest.raises(ConfigError, match="guidance"):
        bundle.sample(Request(guidance=1.0))


@pytest.mark.parametrize("bad", [Request(guidance=-1.0), Request(steps=0), Request(steps=5000)])
def test_impossible_options_are_named(bundle: Bundle, bad: Request) -> None:
    with pytest.raises(ConfigError, match=r"guidance|steps"):
        bundle.sample(bad)


def test_without_encoder_only_pictures_are_out_of_reach(tmp_path: Path) -> None:
    bundle = Bundle.load(make_bundle(tmp_path, with_encoder=False).root)
    assert bundle.sample(Request()).shape == (1, 3, PX, PX)
    with pytest.raises(ConfigError, match=r"no encoder[\s\S]*with_encoder"):
        bundle.sample(Request(like=_picture(0)))


def test_a_picture_file_is_read_as_the_training_images_are(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.zeros((2 * PX, 4 * PX, 4), np.uint8)
    wide[:, PX : 3 * PX] = (255, 0, 0, 255)  # the center square; all else is transparent
    buffer = io.BytesIO()
    Image.fromarray(wide).save(buffer, format="PNG")
    seen: list[torch.Tensor] = []
    network = bundle.encoder.forward
    monkeypatch.setattr(bundle.encoder, "forward", lambda x: (seen.append(x), network(x))[1])
    bundle.represent(Picture(buffer.getvalue()))
    assert seen[0].shape == (1, 3, PX, PX)
    inner = seen[0][0, :, :, 1:-1]  # the outer columns blend with the white that transparency is laid on
    torch.testing.assert_close(inner, torch.tensor([1.0, 0, 0])[:, None, None].expand_as(inner))
    with pytest.raises(DataError, match=r"text\.png cannot be used[\s\S]*not a picture"):
        bundle.represent(Picture(b"text", "text.png"))


def test_a_blank_representation_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle.encoder, "network", torch.nn.Sequential(torch.nn.Flatten(), _Constant()))
    with pytest.raises(DataError, match="no representation"):
        bundle.sample(Request(like=_picture(0)))


class _Constant(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(x), DIM)


def test_damaged_and_foreign_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="not a bundle"):
        Bundle.load(tmp_path)
    made = make_bundle(tmp_path)
    bundle, values = made.root, made.read_json("rcg.json")
    for wrong, words in ({"schema_version": 99}, r"does not read[\s\S]*99"), ({"sampling": {}}, "damaged"):
        made.write_json("rcg.json", values | wrong)
        made.commit()
        with pytest.raises(ArtifactError, match=words):
            Bundle.load(bundle)
    made.write_bytes("rcg.json", b"{")
    made.commit()
    with pytest.raises(ArtifactError, match="damaged"):
        Bundle.load(bundle)
    made.write_json("rcg.json", values)
    (bundle / "pixels/weights.safetensors").unlink()
    made.commit()
    with pytest.raises(MissingError, match=r"incomplete[\s\S]*pixels/weights"):
        Bundle.load(bundle)
