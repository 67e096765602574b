"""rcg repro --parallel against DVC itself, in a pipeline of our shape whose commands are shell one-liners."""

import subprocess
from pathlib import Path

import pytest
import yaml

from components.errors import ConfigError
from flows.execution.dvc import dvc_command
from flows.execution.parallel import repro_parallel
from flows.pipeline.table import STAGES

MEET = "touch {0}.here; for i in $(seq 300); do [ -e {1}.here ] && break; sleep 0.1; done; [ -e {1}.here ]"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A pipeline in which rdm and pixels each wait for the other to have started."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([dvc_command(), "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "collection.lock").write_text("{}")
    write(tmp_path)
    return tmp_path


def write(folder: Path, **commands: str) -> None:
    commands = {"rdm": MEET.format("rdm", "pixels"), "pixels": MEET.format("pixels", "rdm")} | commands
    stages = {
        name: {
            "cmd": f"{commands.get(name, 'true')} && echo {name} >> order && echo {name} > {name}.out",
            "deps": ["collection.lock", *(f"{need.stage}.out" for need in stage.needs)],
            "outs": [f"{name}.out"],
        }
        for name, stage in STAGES.items()
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


def test_rdm_and_pixels_run_at_the_same_time(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert repro_parallel([], project) == 0
    order = (project / "order").read_text().split()
    assert sorted(order) == sorted(STAGES)
    assert sorted(order[-5:-3]) == ["pixels", "rdm"]
    shown = capfd.readouterr().out
    assert "rdm    | Running stage 'rdm'" in shown
    assert "pixels | Running stage 'pixels'" in shown
    assert repro_parallel([], project) == 0
    assert (project / "order").read_text().split() == order


def test_when_one_fails_the_other_is_let_finish_and_the_rest_waits(project: Path) -> None:
    write(project, rdm="touch rdm.here; false", pixels="while ! [ -e rdm.here ]; do sleep 0.1; done; sleep 2")
    assert repro_parallel([], project) != 0
    assert (project / "pixels.out").exists()
    assert not (project / "sample.out").exists()


def test_targets_are_refused() -> None:
    with pytest.raises(ConfigError, match="whole pipeline"):
        repro_parallel(["rdm"])
