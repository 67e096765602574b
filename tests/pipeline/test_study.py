"""The study end to end on the smoke preset: every arm is trained and measured once; a second run finds it all done."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import study
from benchmarks.study_results import ORDER, write_results

REPO = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with one seed and two points in the grid."""
    shutil.copy(REPO / "presets/smoke.yaml", tmp_path / "smoke.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RCG_MLFLOW_URI", "off")
    monkeypatch.setattr(study, "SEEDS", (0,))
    monkeypatch.setattr(study, "STEPS", (5,))
    monkeypatch.setattr(study, "GUIDANCE", (0.0, 1.0))
    return tmp_path


def test_all_arms_and_resume(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = study.run_study(Path("smoke.yaml"))
    first = capsys.readouterr().out
    assert {result.arm for result in found.results} == set(ORDER) == set(found.pictures)
    assert len(found.tried["rcg"]) == 2
    assert len(found.tried["unconditional"]) == 1
    assert all(result.metrics["n_held_out"] == found.results[0].metrics["n_held_out"] for result in found.results)
    assert first.count("pixels   made") == 4  # oracle samples from rcg's generator
    assert first.count("encoder  made") == 1

    again = study.run_study(Path("smoke.yaml"))
    assert " made " not in capsys.readouterr().out
    assert again == found

    page = write_results(found, project / "docs", minutes=1).read_text()
    assert "| RCG / unconditional |" in page
    for arm in ORDER:
        assert f"| {arm} | 0 |" in page
        assert (project / "docs" / f"digits-{arm}.png").is_file()
    assert json.loads((project / "docs/digits.json").read_text())["chosen"].keys() == set(ORDER)
