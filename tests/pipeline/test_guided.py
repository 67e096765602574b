"""Guides from params.yaml to a picture: of the RDM beside autoguidance, and of a pixel generator without conditions."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.guides.config import MlpGuideConfig, UNetGuideConfig
from flows.pipeline.table import pipeline
from tests.support.cli import rcg

PRESET = Path(__file__).parents[2] / "presets/smoke.yaml"


def _params(model: Any) -> dict[str, Any]:
    """The smoke preset with a guide, which sampling follows."""
    params: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(PRESET.read_text())))
    guided, follow = model.guides, {"guide": {"scale": 3.0, "interval": [0.0, 20.0]}}
    if guided == "pixels":
        params |= {"rdm": None}
        params["pixels"]["model"]["conditions"] = []
        params["sample"] |= {"representations": None, "rdm": None}
        params["sample"]["pixels"]["guidance"] = 0.0
        model = model.model_copy(update={"latents": "standardized"})
    else:
        params["rdm"]["earlier"] = 0.5
        follow |= {"autoguidance": 0.5, "guidance_interval": [0.0, 10.0]}
    schedule = params[guided]["model"]["schedule"]
    params["sample"][guided] |= follow
    params["guide"] = {
        "numerics": 1,
        "seed": 0,
        "model": model.model_dump(mode="json") | {"schedule": schedule},
        "train": params["pixels"]["train"],
    }
    return params


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guided")


@pytest.mark.parametrize("model", [MlpGuideConfig.tiny(), UNetGuideConfig.tiny()], ids=lambda model: model.guides)
def test_a_pipeline_with_a_guide_ends_in_pictures_of_a_class(
    model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # both pipelines in one project: what is equal of them runs once
    monkeypatch.setenv("RCG_MLFLOW_URI", "off")
    params = _params(model)
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    rcg("snapshot", "demo")
    for stage in pipeline(params):
        rcg("run", stage)
    metrics = json.loads(Path("artifacts/guide/metrics.json").read_text())
    assert {"accuracy_q1", "accuracy_clean_q4", "chance"} <= metrics.keys()
    assert "class_agreement" in json.loads(Path("artifacts/evaluate/metrics.json").read_text())
    lineage = json.loads(Path("artifacts/bundle/lineage.json").read_text())
    assert lineage["parents"]["guide"]["metrics"] == metrics
    rcg("sample", "--class", "7", "--guide-scale", "2", "-n", "2", "--out", f"led-{model.guides}")
    assert "identical" in rcg("verify", f"led-{model.guides}/0001.png")
    assert "identical" in rcg("verify", "artifacts/sample/pictures/grid.png")
    rcg("sample", "--guide-scale", "0", "-n", "2", "--out", f"free-{model.guides}")
    led, free = (Path(f"{name}-{model.guides}/0000.png").read_bytes() for name in ("led", "free"))
    assert led != free
