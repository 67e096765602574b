"""A sample of `make test-chaos`: about a minute of it."""

from pathlib import Path

import pytest

from tests.support.chaos import Rig

N_TRIALS = 18


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("chaos")).prepare()


@pytest.mark.processes
def test_whatever_goes_wrong_the_same_command_goes_on_or_says_what_is_wrong(rig: Rig) -> None:
    trials = rig.trials()
    assert len(trials) > 500
    assert len({trial.kind for trial in trials[:N_TRIALS]}) >= 4
    findings = [rig.run(trial) for trial in trials[:N_TRIALS]]
    assert [f"{f.name}: {f.outcome}\n{f.text}" for f in findings if not f.passed] == []


@pytest.mark.processes
def test_the_faults_come(rig: Rig, tmp_path: Path) -> None:
    """A trial whose fault never comes would pass without a word."""
    from tests.support.chaos import rcg

    assert rcg(rig.made, "run", "codec", fault="kill", at=1)[0] < 0
    code, text = rcg(rig.made, "run", "codec", fault="EIO", at=2)
    assert code != 0, text
