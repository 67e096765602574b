"""rcg repro --parallel against DVC itself, in a pipeline of our shape whose commands are shell one-liners."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from components.errors import ConfigError
from flows.execution.dvc import dvc_command, repro
from flows.execution.parallel import repro_parallel
from flows.pipeline.table import Need, Stage
from tests.support.pipelines import stages_of

MEET = "touch {0}.here; for i in $(seq 300); do [ -e {1}.here ] && break; sleep 0.1; done; [ -e {1}.here ]"
STAGES = stages_of("smoke")
NEEDS = {name: [need.stage for need in stage.needs] for name, stage in STAGES.items()}
PAIRS = (("encoder", "codec"), ("rdm", "pixels"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run([*dvc_command(), "init", "-q"], cwd=folder, check=True)
    (folder / "collection.lock").write_text("{}")
    return folder


@pytest.fixture
def project(repository: Path, tmp_path: Path) -> Path:
    """A pipeline in which two pairs of stages each wait for the other to have started."""
    shutil.copytree(repository, tmp_path, dirs_exist_ok=True)
    write(tmp_path)
    return tmp_path


def write(folder: Path, needs: Mapping[str, list[str]] = NEEDS, **commands: str) -> None:
    """dvc.yaml in which every stage notes its name in `order`; of the commands, those of pairs wait for each other."""
    meeting = {one: MEET.format(one, other) for pair in PAIRS for one, other in (pair, pair[::-1])}
    commands = meeting | commands
    stages = {
        name: {
            "cmd": f"{commands.get(name, 'true')} && echo {name} >> order && echo {name} > {name}.out",
            "deps": ["collection.lock", *(f"{parent}.out" for parent in parents)],
            "outs": [f"{name}.out"],
        }
        for name, parents in needs.items()
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


def stages_with(needs: Mapping[str, list[str]]) -> dict[str, Stage]:
    return {name: Stage(name, tuple(Need(n) for n in parents), ()) for name, parents in needs.items()}


def order(folder: Path) -> list[str]:
    return (folder / "order").read_text().split()


def test_stages_that_do_not_wait_for_each_other_run_at_the_same_time(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert repro_parallel([], STAGES, project, jobs=2) == 0
    ran = order(project)
    assert [ran[0], set(ran[1:3]), ran[3], set(ran[4:6]), *ran[6:]] == [
        "collect",
        {"encoder", "codec"},
        "encode",
        {"rdm", "pixels"},
        "sample",
        "evaluate",
        "bundle",
    ]
    shown = capfd.readouterr().out.splitlines()
    assert "rdm      | Running stage 'rdm':" in shown
    assert "codec    | Running stage 'codec':" in shown
    assert "Running stage 'encode':" in shown
    assert repro_parallel([], STAGES, project, jobs=2) == 0
    assert order(project) == ran
    assert repro([], project) == 0
    assert order(project) == ran


def test_one_job_is_one_stage_at_a_time(project: Path) -> None:
    alone = "[ ! -e busy ] && touch busy && sleep 0.2 && rm busy"
    write(project, **dict.fromkeys(STAGES, alone))
    assert repro_parallel([], STAGES, project, jobs=1) == 0
    assert sorted(order(project)) == sorted(STAGES)


def test_a_stage_starts_when_its_own_needs_are_done_not_when_others_are(project: Path) -> None:
    """Two chains beside each other: neither waits for the other's first stage."""
    needs: dict[str, list[str]] = {"a": [], "b": [], "a2": ["a"], "b2": ["b"], "end": ["a2", "b2"]}
    write(project, needs, a="for i in $(seq 300); do [ -e b2.out ] && break; sleep 0.1; done; [ -e b2.out ]")
    assert repro_parallel([], stages_with(needs), project, jobs=2) == 0
    assert order(project) == ["b", "b2", "a", "a2", "end"]


def test_when_one_fails_the_other_is_let_finish_and_the_rest_waits(project: Path) -> None:
    needs: dict[str, list[str]] = {"rdm": [], "pixels": [], "sample": ["rdm", "pixels"]}
    write(project, needs, rdm="touch rdm.here; false", pixels="while ! [ -e rdm.here ]; do sleep 0.1; done; sleep 2")
    assert repro_parallel([], stages_with(needs), project, jobs=2) != 0
    assert (project / "pixels.out").exists()
    assert not (project / "sample.out").exists()


def test_targets_are_refused() -> None:
    with pytest.raises(ConfigError, match="whole pipeline"):
        repro_parallel(["rdm"], STAGES)


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dvc\.yaml is missing"):
        repro_parallel([], STAGES, tmp_path)
