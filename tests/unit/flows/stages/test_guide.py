"""Stage guide: what it writes; a bundle with a guide is led to a class; what does not fit is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from components.bundle.bundle import Bundle
from components.bundle.request import Picture, Request
from components.bundle.serving import request_params
from components.bundle.system import SystemSampling
from components.cache.samples import Samples
from components.errors import ConfigError, DataError, WeightsError
from components.files import file_sha256
from components.generators.config import GeneratorData
from components.guides import load_guide
from components.guides.config import MlpGuideConfig, UNetGuideConfig, VitGuideConfig
from components.images.pictures import png_bytes, to_uint8
from components.interop.checkpoint import export_tensors, write_checkpoint
from components.pixels.adm import AdmConfig
from components.training.config import TrainConfig
from components.weights_file import WeightsFile
from flows.play.abilities import Abilities
from flows.stages.bundle.run import run as make_bundle
from flows.stages.guide.params import GuideParams
from flows.stages.guide.run import run
from flows.stages.sample.params import SampleParams
from flows.stages.sample.run import run as run_sample
from tests.support.bundles import SAMPLING, bundle_params, make_parents
from tests.support.folders import DIM, FolderArtifact, FolderInputs, draw_bars, make_encode, randomize
from tests.support.generators import PIXEL
from tests.support.toys import worker

SPLITS = ["train"] * 12 + ["val"] * 6 + ["test"] * 2
MLP = MlpGuideConfig.tiny()


def _params(model: Any, **changes: object) -> GuideParams:
    params = GuideParams(numerics=1, model=model, seed=0, train=TrainConfig.tiny())
    return params.model_copy(update=changes)


@pytest.mark.parametrize("model", [MLP, UNetGuideConfig.tiny(), VitGuideConfig.tiny()], ids=lambda model: model.kind)
def test_it_writes_a_guide_and_how_well_it_sees_through_noise(model: Any, tmp_path: Path) -> None:
    make_encode(tmp_path / "in/encode", draw_bars(len(SPLITS))[0], SPLITS)
    out = FolderArtifact(tmp_path / "out")
    metrics = run(_params(model), FolderInputs(tmp_path / "in"), out, worker(tmp_path))
    assert out.names() == ["config.json", "plots/loss.json", "weights.safetensors"]
    quarters = [f"accuracy{kind}_q{i}" for kind in ("", "_clean") for i in (1, 2, 3, 4)]
    assert metrics.keys() == {"loss", "n_train", "n_val", "chance", *quarters}
    assert (metrics["n_train"], metrics["n_val"], metrics["chance"]) == (12, 6, 0.5)
    assert all(0 <= metrics[name] <= 1 for name in quarters)
    guide = load_guide(out)
    assert guide.data.classes == ("bar", "post")
    assert guide.frequencies.tolist() == [0.5, 0.5]
    assert {"loss", "loss_1"} <= out.read_json("plots/loss.json")[0].keys()


def test_more_steps_recognize_bars_and_posts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splits = ["train"] * 64 + ["val"] * 32
    make_encode(tmp_path / "in/encode", draw_bars(len(splits))[0], splits)
    tiny = TrainConfig.tiny()
    optimizer = tiny.optimizer.model_copy(update={"lr": 1e-2})
    train = tiny.model_copy(update={"steps": 40, "batch_size": 32, "optimizer": optimizer})
    params = _params(UNetGuideConfig.tiny(), train=train)
    metrics = run(params, FolderInputs(tmp_path / "in"), FolderArtifact(tmp_path / "out"), worker(tmp_path))
    assert metrics["accuracy_q1"] > 0.9
    assert metrics["accuracy_q1"] > metrics["accuracy_q4"]
    assert not caplog.records


def test_a_classifier_of_adms_is_imported_and_examined(tmp_path: Path) -> None:
    """As its file has it; no twin without noise was trained."""
    make_encode(tmp_path / "in/encode", draw_bars(len(SPLITS))[0], SPLITS)
    model = UNetGuideConfig.model_validate(UNetGuideConfig.tiny().model_dump() | {"input": "as_is"})
    theirs = model.build(GeneratorData(target=PIXEL, dim=DIM, classes=("bar", "post")))
    randomize(theirs)
    tensors = export_tensors("adm-classifier", theirs)
    write_checkpoint(file := tmp_path / "classifier.pt", "adm-classifier", tensors)
    pin = WeightsFile(uri=str(file), sha256=file_sha256(file))
    out = FolderArtifact(tmp_path / "out")
    metrics = run(_params(model, weights=pin, train=None), FolderInputs(tmp_path / "in"), out, worker(tmp_path))
    assert metrics.keys() == {"n_train", "n_val", "chance", *(f"accuracy_q{i}" for i in (1, 2, 3, 4))}
    again = export_tensors("adm-classifier", load_guide(out))
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], t) for name, t in tensors.items())
    with pytest.raises(WeightsError, match=r"adm file(.|\n)*params of `pixels`"):
        run(
            _params(model, weights=_adm_file(tmp_path), train=None),
            FolderInputs(tmp_path / "in"),
            out,
            worker(tmp_path),
        )
    with pytest.raises(ValidationError, match=r"guide.train and guide.weights are both null"):
        GuideParams(numerics=1, model=model, seed=0, train=None)


def _adm_file(folder: Path) -> WeightsFile:
    """A generator's file, which is no classifier's."""
    config = AdmConfig.model_validate(AdmConfig.tiny().model_dump() | {"conditions": []})
    generator = config.build(GeneratorData(target=PIXEL, dim=DIM, classes=None))
    write_checkpoint(file := folder / "adm.pt", "adm", export_tensors("adm", generator))
    return WeightsFile(uri=str(file), sha256=file_sha256(file))


def test_without_labels_it_is_refused(tmp_path: Path) -> None:
    make_encode(tmp_path / "in/encode", draw_bars(len(SPLITS))[0], SPLITS, labeled=False)
    with pytest.raises((ConfigError, DataError), match="too few"):
        run(_params(MLP), FolderInputs(tmp_path / "in"), FolderArtifact(tmp_path / "out"), worker(tmp_path))


def _bundle(root: Path, condition: str, model: Any, scale: float | None) -> Bundle:
    """A bundle of random weights, its guide among them."""
    guided = model.guides
    options = getattr(SAMPLING, guided).model_dump() | ({"guide": {"scale": scale}} if scale else {})
    sampling = SystemSampling.model_validate(SAMPLING.model_dump() | {guided: options})
    inputs = make_parents(root / "parents", condition, sampling=sampling)
    schedule = inputs[guided].read_json("config.json")["model"]["schedule"]
    model = type(model).model_validate(model.model_dump() | {"schedule": schedule})
    out = FolderArtifact(root / "parents/guide")
    run(_params(model), inputs, out, worker(root))
    bundle = FolderArtifact(root / "bundle")
    make_bundle(bundle_params(), inputs, bundle, worker(root))
    bundle.commit()
    return Bundle.load(bundle.root)


@pytest.mark.parametrize(
    ("condition", "model"), [("representation", MLP), ("none", UNetGuideConfig.tiny())], ids=["rdm", "pixels"]
)
def test_a_request_is_led_to_a_class_by_the_bundles_guide(condition: str, model: Any, tmp_path: Path) -> None:
    bundle = _bundle(tmp_path, condition, model, None)
    assert bundle.system.classes == ("bar", "post")
    assert [one["name"] for one in request_params(SAMPLING, bundle.system.guided)][-1] == "guide_scale"
    plain = bundle.sample(Request(n=4))
    assert torch.equal(bundle.sample(Request(n=4, guide_scale=0.0)), plain)
    led = [bundle.sample(Request(n=4, class_name=name, guide_scale=20.0)) for name in ("bar", "post")]
    assert not torch.equal(led[0], led[1])
    assert not torch.equal(led[0], plain)
    sampling = bundle.provenance(Request(n=4, class_name="bar", guide_scale=20.0)).sampling
    assert sampling[model.guides]["guide"] == {"scale": 20.0, "interval": None}
    with pytest.raises(ConfigError, match=r"guide alone, which is off[\s\S]*--guide-scale"):
        bundle.sample(Request(class_name="bar"))
    with pytest.raises(ConfigError, match="cannot sample with this scale"):
        bundle.sample(Request(class_name="bar", guide_scale=-1.0))
    with pytest.raises(ConfigError, match=r"unknown class[\s\S]*bar, post"):
        bundle.sample(Request(class_name="cross", guide_scale=1.0))


def test_a_request_is_led_to_a_picture_without_a_conditioned_painter(tmp_path: Path) -> None:
    """By a guide that recognizes representations; the generator has no condition at all."""
    model = UNetGuideConfig.tiny().model_copy(update={"recognizes": "representation"})
    bundle = _bundle(tmp_path, "none", model, None)
    assert bundle.system.classes is None
    pictures = _pictures()
    plain = bundle.sample(Request(n=3))
    led = [bundle.sample(Request(n=3, like=picture, guide_scale=50.0)) for picture in pictures]
    assert not torch.equal(led[0], led[1])
    assert not torch.equal(led[0], plain)
    with pytest.raises(ConfigError, match=r"led to a representation by its guide alone[\s\S]*--guide-scale"):
        bundle.sample(Request(like=pictures[0]))
    assert Abilities.of(bundle).pictures
    with pytest.raises(ConfigError, match="no representation of a text to mix"):
        bundle.sample(Request(text=("a bar",), like=pictures[0], guide_scale=2.0))
    with pytest.raises(ConfigError, match="needs the representation to guide to"):
        bundle.sample(Request(guide_scale=2.0))
    with pytest.raises(ConfigError, match="does not take a class"):
        bundle.sample(Request(class_name="bar", guide_scale=2.0))


def _pictures() -> list[Picture]:
    rng = np.random.default_rng(0)
    return [Picture(png_bytes(rng.integers(256, size=(8, 8, 3), dtype=np.uint8))) for _ in range(2)]


def test_the_sample_stage_follows_the_guide_as_the_bundle_does(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path, "representation", MLP, 5.0)
    params = SampleParams(
        numerics=1,
        n=5,
        batch_size=3,
        seed=0,
        representations="rdm",
        grid=4,
        rdm=bundle.card.sampling.rdm,
        pixels=bundle.card.sampling.pixels,
    )
    out = FolderArtifact(tmp_path / "samples")
    run_sample(params, FolderInputs(tmp_path / "parents"), out, worker(tmp_path))
    samples = Samples(out)
    assert (samples.images(np.arange(5)) == to_uint8(bundle.sample(Request(n=5)))).all()
    labels = samples.labels()
    assert labels is not None
    assert set(labels) <= {0, 1}
    assert "guide" in samples.info.parents
    shown = bundle.sample(Request(n=2, representation=(0.5, -0.5) * (DIM // 2)))
    assert torch.equal(shown, bundle.sample(Request(n=2, representation=(0.5, -0.5) * (DIM // 2), guide_scale=0.0)))


def test_a_model_without_a_guide_says_so(tmp_path: Path) -> None:
    inputs = make_parents(tmp_path / "parents")
    out = FolderArtifact(tmp_path / "bundle")
    make_bundle(bundle_params(), inputs, out, worker(tmp_path))
    out.commit()
    with pytest.raises(ConfigError, match=r"has no guide[\s\S]*section guide"):
        Bundle.load(out.root).sample(Request(guide_scale=2.0))
