"""A sample of `make test-chaos`: about half a minute of it."""

import shutil
from pathlib import Path

import pytest

from tests.support.chaos import NAMED, Rig, rcg

N_TRIALS = 12


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("chaos")).prepare()


@pytest.mark.processes
def test_whatever_goes_wrong_the_same_command_goes_on_or_says_what_is_wrong(rig: Rig) -> None:
    trials = rig.trials()
    assert len(trials) > 500
    assert len({trial.kind for trial in trials[:N_TRIALS]}) >= 3
    findings = [rig.run(trial) for trial in trials[:N_TRIALS]]
    assert [f"{f.name}: {f.outcome}\n{f.text}" for f in findings if not f.passed] == []


@pytest.mark.processes
def test_the_faults_come(rig: Rig, tmp_path: Path) -> None:
    """A trial whose fault never comes would pass without a word."""
    root = tmp_path / "made"
    shutil.copytree(rig.made, root)
    shutil.rmtree(root / "store/runs/codec")
    assert rcg(root, "run", "codec", fault="kill", at=1)[0] == -9
    code, text = rcg(root, "run", "codec", fault="EIO", at=2)
    assert code in NAMED, text
    assert "Input/output error" in text
