"""Stage rdm: what it writes, that the result loads and is the averaged one, and which mistakes it names."""

import hashlib
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from components.cache.config import Reading
from components.cache.reader import open_cache
from components.conditions.config import VectorConfig
from components.errors import ConfigError, WeightsError
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.generators.sampling import DiffusionSampling
from components.interop.checkpoint import export_tensors, read_checkpoint, write_checkpoint
from components.metrics.frechet import frechet
from components.rdm import RdmConfig, load_rdm
from components.rng import image_rng
from components.training.config import EmaConfig, TrainConfig
from components.weights import read_tensors
from components.weights_file import WeightsFile
from flows.stages.rdm.chain import chain
from flows.stages.rdm.params import CheckConfig, RdmParams
from flows.stages.rdm.run import draw, run
from tests.support.folders import DIM, FolderArtifact, FolderInputs, contents, draw_bars, make_encode, randomize
from tests.support.generators import BY_CLASS, PIXEL, Rows, build_rdm
from tests.support.starts import REFUSED, check_start
from tests.support.toys import worker

PIN = {"uri": "a", "sha256": "0" * 64}
SPLITS = ["train"] * 12 + ["val"] * 6 + ["test"] * 2


def _params(**changes: object) -> RdmParams:
    base = RdmParams(
        numerics=1,
        model=RdmConfig.tiny(),
        seed=0,
        weights=None,
        init=None,
        train=TrainConfig.tiny(),
        ema=EmaConfig.tiny(),
        check=CheckConfig.tiny(),
    )
    return base.model_copy(update=changes)


def _inputs(root: Path, splits: list[str] = SPLITS, *, labeled: bool = True) -> FolderInputs:
    make_encode(root / "encode", draw_bars(len(splits))[0], splits, labeled=labeled)
    return FolderInputs(root)


def test_rows_may_be_read_by_window(tmp_path: Path) -> None:
    inputs, read = _inputs(tmp_path / "in"), Reading(lanes=2, window=1)
    out, other = FolderArtifact(tmp_path / "window"), FolderArtifact(tmp_path / "whole")
    metrics = run(_params(reading=read), inputs, out, worker(tmp_path))
    assert metrics["n_train"] == 12
    assert metrics.keys() == run(_params(), inputs, other, worker(tmp_path)).keys()
    assert out.read_bytes("weights.safetensors") != other.read_bytes("weights.safetensors")


def test_a_base_of_several_gaussians_is_fitted_described_and_saved(tmp_path: Path) -> None:
    choice = {"by": "class"}
    base = {"kind": "gaussians", "k": 3, "kappa": 1.0, "learnable": True, "index": True, "choice": choice}
    params = _params(
        model=RdmConfig.model_validate(
            RdmConfig.tiny().model_dump()
            | {
                "conditions": BY_CLASS,
                "base": base,
            }
        )
    )
    inputs, out = _inputs(tmp_path / "in"), FolderArtifact(tmp_path / "out")
    metrics = run(params, inputs, out, worker(tmp_path))
    assert 0 < metrics["base_explained_variance"] <= 1
    assert 1 <= metrics["base_smallest"] <= 4
    assert 1 < metrics["base_occupancy"] <= 3
    assert {"pictures/components.png", "pictures/chain.png"} < set(out.names())
    rdm = load_rdm(out)
    z = open_cache(inputs["encode"]).training().rows(np.arange(12))["representation"]
    assert float(z.min()) <= float(rdm.process.base.centroids.min()) <= float(z.max())  # type: ignore[union-attr, arg-type, operator]
    model = params.model.model_copy(update={"base": params.model.base.model_copy(update={"k": 13})})
    with pytest.raises(ConfigError, match="more Gaussians than training rows"):
        run(_params(model=model), inputs, FolderArtifact(tmp_path / "more"), worker(tmp_path / "w"))
    file = tmp_path / "rdm.pth"
    write_checkpoint(file, "rdm", export_tensors("rdm", build_rdm(RdmConfig.tiny())))
    weights = WeightsFile(uri=str(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    plain = RdmConfig.tiny().model_copy(update={"base": params.model.base.model_copy(update={"index": False})})
    with pytest.raises(WeightsError, match=r"ends in N\(0, I\)(.|\n)*kind: normal"):
        run(_params(model=plain, weights=weights, train=None), inputs, FolderArtifact(tmp_path / "n"), worker(tmp_path))


@pytest.mark.parametrize(("base", "low", "high"), [(None, -0.15, 0.15), (1, -0.15, 0.15), (2, 0.9, 1.0)])
def test_the_chain_begins_at_what_a_text_is_of_with_several_gaussians(
    base: int | None, low: float, high: float
) -> None:
    """Cosine(z_T, z_0) of 2211.15388, of pictures in two opposite clusters, where one Gaussian is around 0."""
    noise = torch.randn(80, DIM, generator=torch.Generator().manual_seed(0))
    z = 0.3 * noise + torch.where(torch.arange(80) % 4 < 2, 3.0, -3.0)[:, None] * torch.eye(DIM)[0]
    text = FieldSpec(name="text", dtype="float32", shape=(DIM,), nullable=True)
    reads = VectorConfig(kind="vector", field="text", port="vector", drop_prob=0.1, missing="null")
    nearest = {"by": "nearest", "field": "text"}
    gaussians = {"kind": "gaussians", "k": base, "kappa": 1.0, "learnable": False, "index": False, "choice": nearest}
    changes = {"dim": DIM, "conditions": [reads], "base": gaussians if base else {"kind": "normal"}}
    config = RdmConfig.model_validate(RdmConfig.tiny().model_dump() | changes)
    rdm = config.build(GeneratorData(target=PIXEL, dim=DIM, classes=None, more=(text,)))
    rdm.fit(Rows({"representation": z, "text": z}), 0)
    guided = DiffusionSampling.tiny().model_copy(update={"guidance": 1.0})
    check = CheckConfig(n=400, batch_size=200, sampling=guided)
    found = chain(rdm, check, 0, {"text": z}, z)
    assert low <= found.metrics["chain_cosine_start_real"] <= high
    assert found.unrelated is not None
    assert abs(found.unrelated[0]) < 0.15
    assert found.times[-1] == -1
    assert {len(found.times), *map(len, found.series.values())} == {guided.steps + 1}


@pytest.mark.parametrize("class_conditional", [False, True])
def test_it_writes_a_generator_its_curve_and_what_it_is_worth(tmp_path: Path, class_conditional: bool) -> None:
    params = _params(model=RdmConfig.tiny().model_copy(update={"conditions": BY_CLASS if class_conditional else ()}))
    inputs, out = _inputs(tmp_path / "in"), FolderArtifact(tmp_path / "out")
    metrics = run(params, inputs, out, worker(tmp_path))
    assert out.names() == ["config.json", "pictures/representations.png", "plots/loss.json", "weights.safetensors"]
    assert [record["step"] for record in out.read_json("plots/loss.json")] == [2, 4]
    assert metrics.keys() == {"loss", "val_loss", "representation_fd", "representation_fd_floor", "n_train", "n_val"}
    assert (metrics["n_train"], metrics["n_val"]) == (12, 6)
    assert metrics["loss"] == out.read_json("plots/loss.json")[-1]["loss"]
    rdm = load_rdm(out)
    assert len(rdm.data.classes or ()) == 2
    if class_conditional:
        assert rdm.class_frequencies is not None
        assert rdm.class_frequencies.tolist() == [0.5, 0.5]
    real = open_cache(inputs["encode"]).held_out("val").rows(np.arange(6))["representation"]
    drawn = draw(rdm, params.check, params.seed, {})
    assert metrics["representation_fd"] == pytest.approx(frechet(drawn.numpy(), real.numpy()), rel=1e-6)


def test_the_same_params_give_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path / "in")
    results = []
    for name, params in {"a": _params(), "b": _params(), "c": _params(seed=1)}.items():
        out = FolderArtifact(tmp_path / name)
        results.append((run(params, inputs, out, worker(tmp_path)), contents(out)))
    assert results[0] == results[1]
    assert results[0][1]["weights.safetensors"] != results[2][1]["weights.safetensors"]


def test_kept_weights_are_the_averaged_ones(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path / "in")
    weights = []
    for name, ema in {"averaged": EmaConfig(decay=0.999, rule="constant"), "last": None}.items():
        out = FolderArtifact(tmp_path / name)
        run(_params(ema=ema), inputs, out, worker(tmp_path))
        weights.append(load_rdm(out).net.out[2].weight)
    slow, fast = (float(w.abs().mean()) for w in weights)
    assert 0 < slow < 0.01 * fast


def test_it_trains_on_train_rows_alone(tmp_path: Path) -> None:
    """Other held-out images, same weights."""
    images = draw_bars(len(SPLITS))[0]
    weights = []
    for name in ("a", "b"):
        make_encode(tmp_path / name / "encode", images, SPLITS)
        out = FolderArtifact(tmp_path / f"out-{name}")
        run(_params(), FolderInputs(tmp_path / name), out, worker(tmp_path))
        weights.append(out.read_bytes("weights.safetensors"))
        images = np.concatenate([images[:12], 255 - images[12:]])
    assert weights[0] == weights[1]


def test_without_held_out_images_it_measures_the_training_loss_alone(tmp_path: Path) -> None:
    out = FolderArtifact(tmp_path / "out")
    metrics = run(_params(), _inputs(tmp_path / "in", ["train"] * 5), out, worker(tmp_path))
    assert metrics.keys() == {"loss", "n_train", "n_val"}
    assert "pictures/representations.png" not in out.names()


def test_only_rank_0_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import flows.stages.rdm.run as stage

    monkeypatch.setattr(stage, "train", lambda *_args: type("Result", (), {"curve": []}))
    out = FolderArtifact(tmp_path / "out")
    assert run(_params(), _inputs(tmp_path / "in"), out, worker(tmp_path, rank=1, world_size=2)) == {}
    assert out.names() == []


def test_mistakes_are_named(tmp_path: Path) -> None:
    inputs, unlabeled = _inputs(tmp_path / "in"), _inputs(tmp_path / "unlabeled", labeled=False)
    out = FolderArtifact(tmp_path / "out")
    wrong = RdmConfig.tiny().model_copy(update={"dim": 16})
    with pytest.raises(ConfigError, match=f"{DIM} dimensions, but rdm.model.dim is 16") as caught:
        run(_params(model=wrong), inputs, out, worker(tmp_path))
    assert caught.value.fix == f"set rdm.model.dim: {DIM}"
    labeled = RdmConfig.tiny().model_copy(update={"conditions": BY_CLASS})
    with pytest.raises(ConfigError, match="no labels"):
        run(_params(model=labeled), unlabeled, out, worker(tmp_path))
    check = CheckConfig.tiny()
    uneven = check.model_copy(
        update={"sampling": check.sampling.model_copy(update={"steps": 30, "spacing": "reference"})}
    )
    with pytest.raises(ValidationError, match=r"rdm\.check\.sampling: 30 sampling steps"):
        RdmParams.model_validate(_params().model_dump() | {"check": uneven})


def test_global_randomness_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    run(_params(), _inputs(tmp_path / "in"), FolderArtifact(tmp_path / "out"), worker(tmp_path))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_it_starts_from_a_finished_run_named_by_its_digest(tmp_path: Path) -> None:
    check_start(run, _params(), _inputs(tmp_path / "in"), tmp_path)


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_a_start_that_may_move_or_is_ambiguous_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RdmParams.model_validate(_params().model_dump() | changes)


def _reference_file(path: Path, *, class_conditional: bool) -> WeightsFile:
    """A checkpoint whose averaged and live denoisers differ, as after training."""
    model = RdmConfig.tiny().model_copy(update={"conditions": BY_CLASS if class_conditional else ()})
    rdm = build_rdm(model, 2)
    randomize(rdm)
    made = export_tensors("rdm", rdm)
    live = {name: t + 1 for name, t in made.items() if name.startswith("model.diffusion_model.")}
    write_checkpoint(path, "rdm", made | live)
    return WeightsFile(uri=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("class_conditional", [False, True])
def test_a_reference_checkpoint_is_imported_and_comes_back(tmp_path: Path, class_conditional: bool) -> None:
    pin = _reference_file(tmp_path / "rdm.pth", class_conditional=class_conditional)
    model = RdmConfig.tiny().model_copy(update={"conditions": BY_CLASS if class_conditional else ()})
    inputs, out = _inputs(tmp_path / "in"), FolderArtifact(tmp_path / "out")
    metrics = run(_params(model=model, weights=pin, train=None), inputs, out, worker(tmp_path))
    assert "loss" not in metrics
    assert metrics["val_loss"] > 0
    given = read_checkpoint(tmp_path / "rdm.pth").tensors
    shadow = given["model_ema.diffusion_modelinput_projweight"]
    assert torch.equal(load_rdm(out).net.input_proj.weight, shadow)
    kept = read_tensors(out.path("reference.safetensors"))
    again = export_tensors("rdm", read_tensors(out.path("weights.safetensors")), kept)
    assert again.keys() == given.keys()
    assert all(torch.equal(again[name], t) for name, t in given.items())


def test_training_starts_from_the_file(tmp_path: Path) -> None:
    pin = _reference_file(tmp_path / "rdm.pth", class_conditional=False)
    slow = TrainConfig.tiny().model_copy(
        update={"optimizer": TrainConfig.tiny().optimizer.model_copy(update={"lr": 1e-9, "weight_decay": 0.0})}
    )
    inputs, out = _inputs(tmp_path / "in"), FolderArtifact(tmp_path / "out")
    run(_params(weights=pin, train=slow), inputs, out, worker(tmp_path))
    shadow = read_checkpoint(tmp_path / "rdm.pth").tensors["model_ema.diffusion_modelinput_projweight"]
    torch.testing.assert_close(load_rdm(out).net.input_proj.weight, shadow, rtol=0, atol=1e-6)


def test_it_trains_or_imports() -> None:
    with pytest.raises(ValidationError, match=r"rdm\.train and rdm\.weights"):
        RdmParams.model_validate(_params(train=None).model_dump())


def test_an_earlier_state_of_the_training_is_kept_and_guides(tmp_path: Path) -> None:
    inputs, out, plain = _inputs(tmp_path / "in"), FolderArtifact(tmp_path / "out"), FolderArtifact(tmp_path / "plain")
    run(_params(earlier=0.5), inputs, out, worker(tmp_path))
    run(_params(), inputs, plain, worker(tmp_path))
    assert out.read_bytes("weights.safetensors") == plain.read_bytes("weights.safetensors")
    rdm, how = cast(Diffusion, load_rdm(out)), DiffusionSampling.tiny()
    assert rdm.earlier is not None
    guided = rdm.sample({}, how.model_copy(update={"autoguidance": 2.0}), image_rng(0, 0, 3, stream="rdm"))
    assert not torch.equal(guided, rdm.sample({}, how, image_rng(0, 0, 3, stream="rdm")))
    with pytest.raises(ValidationError, match="train is null; set earlier: null"):
        RdmParams.model_validate(_params().model_dump() | {"earlier": 0.5, "train": None, "weights": PIN})
    assert "earlier" not in _params().model_dump()
