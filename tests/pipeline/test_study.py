"""The study end to end on the smoke preset: every arm is trained and measured once; a second run finds it all done."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import study
from benchmarks.study_results import ORDER, write_results

pytestmark = pytest.mark.long

REPO = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project."""
    shutil.copy(REPO / "presets/smoke.yaml", tmp_path / "smoke.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RCG_MLFLOW_URI", "off")
    return tmp_path


def test_all_arms_and_resume(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = replace(study.PLANS["smoke"], preset=Path("smoke.yaml"))
    found = study.run_study(plan)
    first = capsys.readouterr().out
    assert {result.arm for result in found.results} == set(ORDER) == set(found.pictures)
    assert len(found.tried["rcg"]) == 4  # two samplers, two strengths of guidance
    assert [options["eta"] for options, _ in found.tried["unconditional"]] == [0.0, 1.0]
    assert all(found.chosen[arm] == min(tried, key=lambda pair: pair[1])[0] for arm, tried in found.tried.items())
    assert all(result.metrics["n_held_out"] == found.results[0].metrics["n_held_out"] for result in found.results)
    assert first.count("pixels   made") == 4  # oracle samples from rcg's generator
    assert first.count("encoder  made") == 1

    again = study.run_study(plan)
    assert " made " not in capsys.readouterr().out
    assert again == found

    page = write_results(found, project / "docs", minutes=1).read_text()
    assert "| RCG / unconditional |" in page
    assert page.count("at most 2.0") == 1
    assert "ddim eta 1 guidance 1: " in page
    for arm in ORDER:
        assert f"| {arm} | 0 |" in page
        assert (project / "docs" / f"smoke-{arm}.png").is_file()
    assert json.loads((project / "docs/smoke.json").read_text())["chosen"].keys() == set(ORDER)
