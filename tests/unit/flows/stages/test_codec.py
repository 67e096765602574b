import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from components.codecs.base import load_codec
from components.codecs.config import AdversarialConfig, KlConfig, NoneConfig, VqF8Config, VqganConfig, VqganObjective
from components.errors import DataError
from components.images.pictures import to_float
from components.interop.checkpoint import export_tensors, write_checkpoint
from components.training.config import TrainConfig
from components.training.report import Report
from components.weights_file import WeightsFile
from flows.stages.codec.params import CodecParams
from flows.stages.codec.run import run
from tests.support.folders import PX, FolderArtifact, FolderInputs, contents, make_collect, randomize
from tests.support.toys import worker

SPLITS = ["train"] * 14 + ["val"] * 5 + ["test"] * 3
NONE = CodecParams(
    numerics=1, seed=0, weights=None, train=None, objective=None, model=NoneConfig(kind="none", channels=1, px=PX)
)
VQGAN = CodecParams(
    numerics=1,
    seed=0,
    weights=None,
    train=TrainConfig.tiny(),
    objective=VqganObjective.tiny(),
    model=VqganConfig.tiny(),
)


@pytest.fixture
def images(tmp_path: Path) -> np.ndarray:
    return make_collect(tmp_path / "collect", tmp_path / "source", SPLITS)


def codec_of(params: CodecParams, tmp_path: Path, name: str = "codec") -> tuple[FolderArtifact, dict[str, float]]:
    out = FolderArtifact(tmp_path / name)
    return out, run(params, FolderInputs(tmp_path, str(tmp_path / "source")), out, worker(tmp_path))


def test_none_loses_nothing_of_gray_pictures(tmp_path: Path, images: np.ndarray) -> None:
    out, metrics = codec_of(NONE, tmp_path)
    assert metrics["psnr_db"] == pytest.approx(100)
    assert metrics["mean_absolute_error"] == 0
    assert out.names() == ["config.json", "pictures/reconstructions.png"]
    codec, held_out = load_codec(out), images[14:19]
    assert np.array_equal(codec.encode(to_float(held_out))[:, 0].numpy(), held_out[..., 0])


def test_vqgan_is_trained_and_measured_on_val(tmp_path: Path, images: np.ndarray) -> None:
    out, metrics = codec_of(VQGAN, tmp_path)
    held_out = to_float(images[14:19])
    codec = load_codec(out)
    with torch.no_grad():
        tokens = codec.encode(held_out)
        error = (codec.decode(tokens) * 255).round() / 255 - held_out
    counts = np.bincount(tokens.flatten().numpy(), minlength=8)
    share = counts[counts > 0] / counts.sum()
    assert metrics["psnr_db"] == pytest.approx(-10 * np.log10(float(error.square().mean())), abs=1e-3)
    assert metrics["mean_absolute_error"] == pytest.approx(float(error.abs().mean()), rel=1e-4)
    assert metrics["codes_used"] == pytest.approx(len(share) / 8)
    assert metrics["perplexity"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)
    assert (metrics["n_train"], metrics["n_val"]) == (14, 5)
    curve = out.read_json("plots/loss.json")
    assert [record["step"] for record in curve] == [2, 4]
    assert curve[-1]["loss"] == metrics["loss"]


def test_reconstructions_stand_below_the_originals(tmp_path: Path, images: np.ndarray) -> None:
    out, _ = codec_of(NONE, tmp_path)
    picture = np.asarray(Image.open(io.BytesIO(out.read_bytes("pictures/reconstructions.png"))))
    bands = picture.shape[0] // (48 + 2) // 2
    assert bands == 2, "two bands of an original and a reconstruction each"
    top, bottom = picture[2:50, 2:50], picture[52:100, 2:50]
    assert np.array_equal(top, bottom)
    assert np.array_equal(top[::6, ::6], images[14])


def test_equal_runs_give_equal_bytes_and_another_seed_does_not(tmp_path: Path, images: np.ndarray) -> None:
    first, second = (codec_of(VQGAN, tmp_path, name)[0] for name in ("one", "two"))
    other, _ = codec_of(VQGAN.model_copy(update={"seed": 1}), tmp_path, "three")
    assert contents(first) == contents(second)
    assert contents(first)["weights.safetensors"] != contents(other)["weights.safetensors"]


def test_reconstructions_are_shown_during_training(tmp_path: Path, images: np.ndarray) -> None:
    reports: list[Report] = []
    inputs = FolderInputs(tmp_path, str(tmp_path / "source"))
    run(VQGAN, inputs, FolderArtifact(tmp_path / "codec"), worker(tmp_path, report=reports.append))
    shown = [report.images["reconstructions"] for report in reports if "reconstructions" in report.images]
    assert len(shown) == 4
    assert not np.array_equal(shown[0], shown[-1])


def test_only_rank_0_writes(tmp_path: Path, images: np.ndarray) -> None:
    out = FolderArtifact(tmp_path / "codec")
    second = dataclasses.replace(worker(tmp_path), rank=1)
    assert run(NONE, FolderInputs(tmp_path, str(tmp_path / "source")), out, second) == {}
    assert out.names() == []


def test_without_val_train_pictures_are_shown(tmp_path: Path) -> None:
    make_collect(tmp_path / "collect", tmp_path / "source", ["train"] * 3)
    assert codec_of(NONE, tmp_path)[1]["n_val"] == 0


def test_no_training_picture_is_an_error(tmp_path: Path) -> None:
    make_collect(tmp_path / "collect", tmp_path / "source", ["val"] * 3)
    with pytest.raises(DataError, match="no training images"):
        codec_of(NONE, tmp_path)


@pytest.mark.parametrize(
    ("base", "values"),
    [
        (NONE, {"train": VQGAN.train}),
        (NONE, {"objective": VQGAN.objective}),
        (VQGAN, {"train": None}),
        (VQGAN, {"objective": None}),
        (VQGAN, {"train": None, "objective": None}),
        (NONE, {"weights": {"uri": "w.pt", "sha256": "0" * 64}}),
    ],
)
def test_training_options_belong_to_codecs_with_weights(base: CodecParams, values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=f"codec.{next(iter(values))}"):
        CodecParams.model_validate(base.model_dump() | values)


IMPORTED = {"vqgan": VqganConfig.tiny(), "kl": KlConfig.tiny(), "vq-f8": VqF8Config.tiny()}


@pytest.mark.parametrize("kind", IMPORTED)
def test_weights_in_the_references_layout_are_imported(kind: str, tmp_path: Path, images: np.ndarray) -> None:
    source = IMPORTED[kind].build()
    randomize(source)
    tensors = export_tensors(kind, source) | ({"loss.logvar": torch.ones(1)} if kind == "vq-f8" else {})
    write_checkpoint(tmp_path / "codec.ckpt", kind, tensors)
    digest = hashlib.sha256((tmp_path / "codec.ckpt").read_bytes()).hexdigest()
    pin = WeightsFile(uri=str(tmp_path / "codec.ckpt"), sha256=digest)
    params = CodecParams(numerics=1, seed=0, weights=pin, train=None, objective=None, model=IMPORTED[kind])
    out, metrics = codec_of(params, tmp_path)
    assert metrics["psnr_db"] > 0
    assert "loss" not in metrics
    codec, held_out = load_codec(out), to_float(images[14:19])
    with torch.no_grad():
        assert torch.equal(codec.encode(held_out), source.eval().encode(held_out))
    assert ("reference.safetensors" in out.names()) == (kind == "vq-f8")


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_latents_of_another_scale_are_warned_of(scale: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = IMPORTED["kl"].model_copy(update={"scale": 1.0, "posterior": "mode"})
    source = config.build()
    randomize(source)
    write_checkpoint(tmp_path / "kl.safetensors", "kl", export_tensors("kl", source))
    digest = hashlib.sha256((tmp_path / "kl.safetensors").read_bytes()).hexdigest()
    params = CodecParams(
        numerics=1,
        seed=0,
        weights=WeightsFile(uri=str(tmp_path / "kl.safetensors"), sha256=digest),
        train=None,
        objective=None,
        model=config.model_copy(update={"scale": scale}),
    )
    _, metrics = codec_of(params, tmp_path)
    assert ("generators expect about 1" in caplog.text) == (not 1 / 3 < metrics["latent_std"] < 3)
    assert (metrics["latent_std"] > 3) == (scale == 1000.0)


def test_vqgan_is_trained_with_a_discriminator_and_goes_on_from_weights(tmp_path: Path, images: np.ndarray) -> None:
    objective = VqganObjective.tiny().model_copy(update={"adversarial": AdversarialConfig.tiny(), "free_steps": 0})
    params = VQGAN.model_copy(update={"objective": objective})
    out, metrics = codec_of(params, tmp_path)
    assert {"loss_1", "adversarial_weight", "codes_restarted"} <= out.read_json("plots/loss.json")[0].keys()
    assert not any("discriminator" in name for name in load_codec(out).state_dict())
    again, _ = codec_of(params, tmp_path, "again")
    assert contents(out) == contents(again)
    weights = out.path("weights.safetensors")
    pin = WeightsFile(uri=str(weights), sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    _, further = codec_of(params.model_copy(update={"weights": pin}), tmp_path, "further")
    assert further["loss"] < metrics["loss"]


@pytest.mark.parametrize("kind", IMPORTED)
def test_a_size_that_the_codec_cannot_take_is_refused_at_once(kind: str) -> None:
    with pytest.raises(ValidationError, match=r"px is 9(.|\n)*multiple of 2"):
        type(IMPORTED[kind]).model_validate(IMPORTED[kind].model_dump() | {"px": 9})
