"""`rcg init`: files that the rest of the project accepts; nothing is overwritten unasked, nothing runs in vain."""

from pathlib import Path

import pytest
import timm
import torch
from typer.testing import CliRunner

from components.errors import ConfigError, WeightsError
from components.weights import save_weights
from flows.commands.table import app
from flows.execution.budget import recipe, speeds
from flows.execution.budget.speeds import Speeds, measure
from flows.execution.budget.survey import look
from flows.pipeline.params import load_params
from flows.pipeline.plan import check_plan
from flows.settings import WorkerSettings, load_settings
from tests.support.cli import rcg

MACHINE = Speeds(
    start_s=6.0,
    rdm_s=0.015,
    encoder_s={16: 0.3},
    look_s={16: 3e-4},
    pixels_s={16: 0.2},
    evaluate_s={16: 0.09},
    judge_s={16: 5e-4},
    pixels_flops={16: 1.3e10},
    busy=1.0,
    device="cpu",
    threads=2,
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speeds, "measure", lambda *_: MACHINE)


def test_what_it_writes_is_a_project(tmp_path: Path) -> None:
    said = rcg("init", "demo", "--minutes", "5")
    assert "1797 pictures, gray" in said
    assert "next: rcg repro" in said
    params = load_params()
    assert (params.codec.model.px, params.collect.labels) == (16, "metadata")
    assert params.pixels.train is not None
    assert f"{params.pixels.train.steps:,} steps" in said
    assert len(check_plan(Path())) == 9
    assert "1797" in (tmp_path / "collection.lock").read_text()
    assert load_settings().source == "demo"
    text = (tmp_path / "params.yaml").read_text()
    assert text.startswith("# 1797 pictures at 16 px in 5 minutes")
    assert "&id" not in text


def test_a_ready_made_encoder_is_tried_and_written() -> None:
    save_weights(Path("e.safetensors"), timm.create_model("test_vit", num_classes=0).state_dict())
    said = rcg("init", "demo", "--minutes", "5", "--encoder", "e.safetensors", "--timm", "test_vit")
    assert "test_vit of e.safetensors, not trained" in said
    params = load_params()
    assert (params.encoder.model.kind, params.encoder.train) == ("timm", None)
    assert params.rdm is not None
    assert params.rdm.model.dim == 64
    for wrong, what in (
        (("--timm", "test_vit"), "without --encoder"),
        (("--encoder", "e.safetensors"), "without --tim"),
    ):
        with pytest.raises(ConfigError, match=what):
            rcg("init", "demo", "--force", *wrong)
    with pytest.raises(WeightsError, match="does not fit"):
        rcg("init", "demo", "--force", "--encoder", "e.safetensors", "--timm", "test_resnet")


def test_a_ready_made_judge_is_tried_and_written_and_is_not_the_encoder() -> None:
    torch.manual_seed(0)
    save_weights(Path("e.safetensors"), timm.create_model("test_vit", num_classes=0).state_dict())
    save_weights(Path("j.safetensors"), timm.create_model("test_resnet", num_classes=0).state_dict())
    encoder = ("--encoder", "e.safetensors", "--timm", "test_vit")
    judge = ("--judge", "j.safetensors", "--judge-timm", "test_resnet")
    assert "judged by test_resnet of j.safetensors" in rcg("init", "demo", "--minutes", "5", *encoder, *judge)
    section = load_params().evaluate
    assert (section.features.kind, section.train) == ("ready", None)
    for wrong, what in (
        (("--judge-timm", "test_resnet"), "without --judge"),
        (("--judge", "j.safetensors"), "without --judge-timm"),
        ((*encoder, "--judge", "e.safetensors", "--judge-timm", "test_vit"), "does not judge them"),
    ):
        with pytest.raises(ConfigError, match=what):
            rcg("init", "demo", "--force", *wrong)
    with pytest.raises(WeightsError, match="does not exist"):
        rcg("init", "demo", "--force", "--judge", "none", "--judge-timm", "test_resnet")
    with pytest.raises(WeightsError, match="does not fit"):
        rcg("init", "demo", "--force", "--judge", "e.safetensors", "--judge-timm", "test_resnet")


def test_explain_says_what_init_timed(tmp_path: Path) -> None:
    assert "as `rcg init` timed" not in rcg("init", "demo", "--minutes", "5")
    said = rcg("explain")
    assert said.count("as `rcg init` timed its steps") == 9
    assert "all that would or might run: about 5 min" in said
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("n_bootstrap: 100", "n_bootstrap: 101"))
    assert rcg("explain").count("as `rcg init` timed its steps") == 8
    assert "1 more stage(s) that nobody timed" in rcg("explain")
    (tmp_path / ".rcg/expected.json").write_text("{broken")
    assert "rcg init" not in rcg("explain")


def test_existing_params_are_overwritten_only_when_that_is_meant(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("mine: 1\n")
    for answer in ("n\n", ""):
        found = CliRunner().invoke(app, ["init", "demo"], input=answer)
        assert found.exit_code == 1
        assert "params.yaml exists; overwrite it?" in found.output
        assert isinstance(found.exception, ConfigError)
        assert "--force" in str(found.exception)
        assert params.read_text() == "mine: 1\n"
        assert not (tmp_path / "collection.lock").exists()
    assert CliRunner().invoke(app, ["init", "demo"], input="y\n").exit_code == 0
    params.write_text("mine: 1\n")
    rcg("init", "demo", "--force")
    assert params.read_text() != "mine: 1\n"


@pytest.mark.parametrize(("minutes", "message"), [("-3", "no time budget"), ("525600", "a week"), ("1", "at least")])
def test_no_budget_leaves_everything_as_it_was(tmp_path: Path, minutes: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rcg("init", "demo", "--minutes", minutes)
    assert list(tmp_path.iterdir()) == []
    rcg("init", "demo", "--minutes", "nan", code=2)


def test_parts_are_timed_at_the_sizes_of_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    from components.collection.packaged import ScansSource

    monkeypatch.setattr(speeds, "_N_TIMED", 1)
    for stage in recipe.BATCH:
        monkeypatch.setitem(recipe.BATCH, stage, 16)
    told: list[str] = []
    found = measure(look(ScansSource()), WorkerSettings(device="cpu"), told.append)
    assert told == ["timing at 16 px"]
    for by_size in (found.encoder_s, found.pixels_s, found.evaluate_s, found.judge_s, found.pixels_flops):
        assert set(by_size) == {16}
        assert by_size[16] > 0
    assert found.rdm_s > 0
    assert found.busy >= 1
    assert found.device == "cpu"
