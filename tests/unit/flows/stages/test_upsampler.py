"""Upsamplers: the condition, the stage, a bundle that makes images larger, and each mistake by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from components.bundle.bundle import Bundle
from components.bundle.provenance import read_provenance
from components.bundle.request import Edit, Picture, Request, Upscale
from components.codecs.config import NoneConfig
from components.conditions.config import ClassConfig, LowResConfig
from components.errors import ConfigError, DataError
from components.files import file_sha256
from components.generators.sampling import DiffusionSampling, check_sampling
from components.generators.upsampling import HOW, UpsamplerSampling, shrunk, upsampled, upsampler_data
from components.images.pictures import png_bytes, to_uint8
from components.interop.checkpoint import export_tensors, write_checkpoint
from components.nn.vit import seeded_init
from components.pixels import load_pixels
from components.pixels.adm import AdmConfig
from components.pixels.dit import DitConfig
from components.pixels.mage import MageConfig
from components.rng import BatchRng, image_rng
from components.target import LOW_RES, NOISE
from components.training.config import EmaConfig, TrainConfig
from flows.pipeline.params import check_params
from flows.pipeline.table import KINDS
from flows.stages.bundle.run import run as run_bundle
from flows.stages.upsampler.params import UpsamplerParams
from flows.stages.upsampler.run import run
from flows.yaml_files import parse_yaml, read_yaml
from tests.support.bundles import bundle_params, make_cascade, make_parents
from tests.support.cli import rcg
from tests.support.folders import PX, FolderArtifact, FolderInputs, contents, draw_bars, make_collect, randomize
from tests.support.generators import without_level
from tests.support.pipelines import stages_of
from tests.support.toys import worker

SMALL, LARGE_PX = PX // 2, 2 * PX
LOW = LowResConfig.tiny()
SPLITS = ["train"] * 12 + ["val"] * 5
HOW_SAMPLED = UpsamplerSampling(how=DiffusionSampling.tiny(), noise=0.1)


def _model(*conditions: Any) -> DitConfig:
    return DitConfig.tiny().model_copy(update={"conditions": conditions or (LOW,)})


def _params(**changes: Any) -> UpsamplerParams:
    base = {
        "numerics": 1,
        "px": PX,
        "model": _model().model_dump(),
        "seed": 0,
        "train": TrainConfig.tiny().model_dump(),
        "ema": EmaConfig.tiny().model_dump(),
        "sampling": HOW_SAMPLED.how.model_dump(),
        "noise": 0.1,
        "n_val": 4,
    }
    return UpsamplerParams.model_validate(base | changes)


def _trained(root: Path, **changes: Any) -> tuple[FolderArtifact, dict[str, float]]:
    make_collect(root / "collect", root / "source", SPLITS)
    codec = NoneConfig(kind="none", channels=1, px=SMALL)
    FolderArtifact(root / "codec").write_json("config.json", codec.model_dump(mode="json"))
    out = FolderArtifact(root / "upsampler")
    return out, run(_params(**changes), FolderInputs(root, str(root / "source")), out, worker(root))


def test_an_untrained_residual_upsampler_interpolates_and_consistency_keeps_each_mean() -> None:
    small = torch.randint(40, 216, (4, 1, SMALL, SMALL), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    low = LOW.model_copy(update={"residual": True})
    config = DitConfig.model_validate(_model(low).model_dump() | {"prediction": "x0"})
    with seeded_init(0):
        upsampler = config.build(upsampler_data(1, SMALL, PX, None)).eval()

    def made(*, consistent: bool, noise: float = 0.0) -> torch.Tensor:
        how = DiffusionSampling.tiny().model_copy(update={"consistent": consistent})
        sampling, rng = UpsamplerSampling(how=how, noise=noise), image_rng(0, 0, 4, stream="upsampled")
        images = (small / 255).expand(-1, 3, -1, -1)
        return upsampled(upsampler, images, sampling, rng, batch={})

    plain = torch.nn.functional.interpolate(small.float(), (PX, PX), mode="bilinear")
    torch.testing.assert_close(made(consistent=False).float(), plain, atol=1.01, rtol=0)
    randomize(upsampler.net)
    free, tied = made(consistent=False), made(consistent=True)
    inside = torch.nn.functional.max_pool2d((tied.float() - 127.5).abs(), 2) < 127  # no pixel is cut to what bytes hold
    assert inside.float().mean() > 0.2
    assert (shrunk(free, SMALL).int() - small.int())[inside].abs().max() > 5
    assert (shrunk(tied, SMALL).int() - small.int())[inside].abs().max() <= 1
    assert made(consistent=True, noise=0.2).equal(made(consistent=False, noise=0.2))
    with pytest.raises(ValidationError, match="residual low_res is added to a guess of x0"):
        DitConfig.model_validate(config.model_dump() | {"prediction": "v"})
    with pytest.raises(ConfigError, match="consistent with a small image"):
        check_sampling(DiffusionSampling.tiny().model_copy(update={"consistent": True}), DitConfig.tiny())


def test_an_upsampler_of_adms_is_imported_and_measured(tmp_path: Path) -> None:
    low_res = LowResConfig(kind="low_res", port="spatial", drop_prob=0.0, noise=0.0)
    model = AdmConfig.model_validate(AdmConfig.tiny().model_dump() | {"conditions": (low_res,)})
    shapes = export_tensors("adm-upsampler", without_level(model.build(upsampler_data(1, SMALL, PX, None))))
    rng = torch.Generator().manual_seed(3)
    tensors = {name: 0.1 * torch.randn(t.shape, generator=rng) for name, t in shapes.items()}
    write_checkpoint(file := tmp_path / "up.pt", "adm-upsampler", tensors)
    pin = {"uri": str(file), "sha256": file_sha256(file)}
    out, metrics = _trained(tmp_path, model=model.model_dump(), weights=pin, train=None, noise=0.0)
    assert "loss" not in metrics
    assert {"psnr_db", "psnr_bicubic_db", "consistency_db"} < metrics.keys()
    again = export_tensors("adm-upsampler", load_pixels(out))
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], t) for name, t in tensors.items())


def test_the_stage_trains_on_pictures_at_two_sizes_and_measures(tmp_path: Path) -> None:
    out, metrics = _trained(tmp_path)
    assert out.names() == ["config.json", "pictures/upsampled.png", "plots/loss.json", HOW, "weights.safetensors"]
    assert {"psnr_db", "psnr_bicubic_db", "consistency_db"} < metrics.keys()
    assert (metrics["n_train"], metrics["n_val"]) == (12, 5)
    assert UpsamplerSampling.model_validate(out.read_json(HOW)) == HOW_SAMPLED
    upsampler = load_pixels(out)
    small = torch.rand(2, 3, SMALL, SMALL, generator=torch.Generator().manual_seed(0))
    made = upsampled(upsampler, small, HOW_SAMPLED, image_rng(0, 0, 2, stream="x"), batch={})
    assert (made.shape, made.dtype) == ((2, 1, PX, PX), torch.uint8)
    again = FolderArtifact(tmp_path / "again")
    assert run(_params(), FolderInputs(tmp_path, str(tmp_path / "source")), again, worker(tmp_path)) == metrics
    assert contents(again) == contents(out)


def test_a_class_stands_beside_the_small_image(tmp_path: Path) -> None:
    upsampler = load_pixels(_trained(tmp_path, model=_model(LOW, ClassConfig.tiny()).model_dump())[0])
    small, rng = torch.rand(1, 3, SMALL, SMALL, generator=torch.Generator().manual_seed(0)), BatchRng(0, 1)
    randomize(upsampler)
    bar, post, none = (
        upsampled(upsampler, small, HOW_SAMPLED, image_rng(0, 0, 1, stream="x"), batch=batch)
        for batch in ({"class": torch.tensor([0])}, {"class": torch.tensor([1])}, {})
    )
    assert not torch.equal(bar, post)
    assert not torch.equal(bar, none)
    assert rng.rows == 1


def test_small_images_are_means_and_their_noise_has_a_level_that_is_seen() -> None:
    large = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    assert shrunk(large, 4)[0, 0, 0].tolist() == [4, 6, 8, 10]  # (0 + 1 + 8 + 9) / 4, half to even
    with seeded_init(0):
        upsampler = _model().build(upsampler_data(1, SMALL, PX, None))
    batch = {LOW_RES: torch.full((4000, 1, SMALL, SMALL), 128, dtype=torch.uint8)}
    conditioner, flat = upsampler.conditioner, 128 / 127.5 - 1
    seen = conditioner.training_ports(batch, BatchRng(0, 4000)).spatial
    assert seen is not None
    level = seen[:, 1, 0, 0]
    assert bool((seen[:, 1] == level[:, None, None]).all())
    assert float(level.max()) == pytest.approx(0.3, abs=0.01)
    assert float(level.mean()) == pytest.approx(0.15, abs=0.01)
    corner = (seen[:, 0, 0, 0] - flat) / level.clamp(min=0.05)
    assert float(corner[level > 0.05].std()) == pytest.approx(1.0, abs=0.05), "the corner is of one small pixel"
    told = {**batch, NOISE: torch.zeros(4000)}
    clean, _ = conditioner.sampling_ports(told, BatchRng(0, 4000))
    assert clean.spatial is not None
    torch.testing.assert_close(clean.spatial[:, 0], torch.full((4000, PX, PX), flat))
    with pytest.raises(ConfigError, match="needs a small image"):
        conditioner.sampling_ports({}, BatchRng(0, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that makes images of 16 pixels of its own, which have 8."""
    return make_cascade(tmp_path_factory.mktemp("rcg")).root


def _picture() -> Picture:
    return Picture(png_bytes(draw_bars(2)[0][0]))


def test_a_cascade_folds_on_and_a_picture_enters_it_late(folder: Path) -> None:
    bundle = Bundle.load(folder)
    small, large = (bundle.sample(Request(n=3, seed=1, upscale=up)) for up in (None, Upscale()))
    assert (small.shape, large.shape) == ((3, 3, PX, PX), (3, 3, LARGE_PX, LARGE_PX))
    first = Picture(png_bytes(to_uint8(small)[0]))
    made = bundle.sample(Request(n=3, seed=1, upscale=Upscale(image=first)))
    assert torch.equal(made[0], large[0]), "the same small image and noise"
    assert not torch.equal(made[1], made[0])
    noisy = bundle.sample(Request(n=3, seed=1, upscale=Upscale(image=first, noise=0.3)))
    assert not torch.equal(noisy[0], made[0])
    assert bundle.provenance(Request(upscale=Upscale(noise=0.3))).sampling["upsampler"]["noise"] == 0.3
    mask = np.zeros((PX, PX, 3), np.uint8)
    mask[4:] = 255
    fine = draw_bars(2)[0][0].repeat(2, axis=0).repeat(2, axis=1)
    fine[::2] //= 2
    edit = Edit(image=Picture(png_bytes(fine)), mask=Picture(png_bytes(mask)))
    made = bundle.sample(Request(n=2, edit=edit, upscale=Upscale()))
    assert (to_uint8(made)[:, :PX] == fine[:PX]).all(), "known pixels are exact at the large size, too"
    assert not torch.equal(made[0], made[1])
    with pytest.raises(DataError, match=r"smaller[\s\S]*8 x 8[\s\S]*16 x 16"):
        bundle.sample(Request(edit=Edit(image=_picture(), mask=edit.mask), upscale=Upscale()))


def test_mistakes_of_requests_are_named(folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(folder)
    with pytest.raises(ConfigError, match=r"this level of noise[\s\S]*0\.5[\s\S]*0\.3"):
        bundle.sample(Request(upscale=Upscale(noise=0.5)))
    tiny = Picture(png_bytes(draw_bars(1)[0][0][:4, :4]), "tiny.png")
    with pytest.raises(DataError, match=r"tiny\.png is smaller[\s\S]*4 x 4[\s\S]*8 x 8"):
        bundle.sample(Request(upscale=Upscale(image=tiny)))
    with pytest.raises(ConfigError, match="upscaled as it is"):
        Request(like=_picture(), upscale=Upscale(image=_picture()))
    plain = FolderArtifact(tmp_path / "bundle")
    run_bundle(bundle_params(), make_parents(tmp_path / "parents"), plain, worker(tmp_path))
    plain.commit()
    assert "upsampler" not in plain.read_json("rcg.json")["sampling"]
    with pytest.raises(ConfigError, match=r"no upsampler[\s\S]*params\.yaml"):
        Bundle.load(plain.root).sample(Request(upscale=Upscale()))


def test_pictures_are_made_larger_and_proven(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RCG_MLFLOW_URI", "off")
    Path("0.png").write_bytes(_picture().data)
    model = ("--model", str(folder))
    rcg("upscale", "0.png", "-n", "2", "--out", "up", "--noise", "0.2", *model)
    with Image.open("up/0001.png") as made:
        assert made.size == (LARGE_PX, LARGE_PX)
    assert read_provenance(Path("up/0001.png").read_bytes()).condition == {"image": _picture().sha256, "upscale": "yes"}
    assert rcg("verify", "up/0001.png", "--image", "0.png", *model).startswith("identical")
    assert "--image" in rcg("verify", "up/0001.png", *model, code=3)
    rcg("sample", "-n", "2", "--large", "--out", "large", *model)
    assert rcg("verify", "large/0001.png", *model).startswith("identical")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": _model(ClassConfig.tiny()).model_dump()}, r"kind: low_res, port: spatial"),
        ({"model": MageConfig.tiny().model_dump()}, r"has to be a diffusion generator"),
        (
            {"model": DitConfig.tiny().model_dump() | {"conditions": [LOW, DitConfig.tiny().conditions[0]]}},
            "representation",
        ),
        ({"noise": 0.4}, r"0\.4, but training adds 0\.3 at most"),
        ({"px": 9}, r"does not split evenly"),
    ],
)
def test_params_that_do_not_agree_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        _params(**changes)


def test_the_how_to_shows_a_section_that_is_right() -> None:
    text = Path("docs/how-to/upscale.md").read_text()
    section = parse_yaml(text.partition("```yaml\n")[2].partition("```")[0], "upscale.md")
    assert UpsamplerParams.model_validate(section["upsampler"]).px == 64


def test_the_stage_exists_where_its_section_does() -> None:
    plain = read_yaml(Path("presets/smoke.yaml"))
    assert "upsampler" in KINDS
    assert "upsampler" not in stages_of("smoke")
    section = _params(px=16).model_dump(mode="json")
    assert check_params(plain | {"upsampler": section}, "it").upsampler is not None
    for wrong in (8, 20):
        with pytest.raises(ConfigError, match=rf"upsampler\.px is {wrong}.*set upsampler\.px: 16"):
            check_params(plain | {"upsampler": section | {"px": wrong}}, "it")
