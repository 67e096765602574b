"""The bits of five small pipelines are the recorded ones. `python -m tests.support.golden --record` changes them."""

import copy
import os
import subprocess
import sys

import pytest

from tests.support import golden
from tests.support.golden import CASES, ROOT, Measured, compare


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """All cases, in a process of their own with one thread: what ran here before cannot touch them."""
    out = tmp_path_factory.mktemp("golden") / "measured.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.golden", "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return golden.read(out)


@pytest.mark.parametrize("case", CASES)
def test_bits_or_elsewhere_numbers_are_the_recorded_ones(measured: Measured, case: str) -> None:
    lines, how = compare(golden.read().only(case), measured.only(case))
    assert not lines, "\n".join([*lines, how, "meant? OMP_NUM_THREADS=1 python -m tests.support.golden --record"])
    if "NOT" in how:
        pytest.skip(how)  # shown at the end of the run


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_near_the_recorded_ones(measured: Measured, case: str) -> None:
    assert not golden.differing_numbers(golden.read().only(case).numbers, measured.only(case).numbers)


def test_golden_file_is_of_these_cases() -> None:
    recorded = golden.read()
    assert recorded.digests.keys() == recorded.numbers.keys() == CASES.keys()
    trained = recorded.digests["clipart"]
    for stage in ("encoder", "codec", "rdm", "pixels"):
        assert "weights.safetensors" in trained[stage]
        assert f"{stage}/weights.safetensors" in trained["bundle"]
    assert not any(name.endswith(".py") for name in trained["bundle"])


def test_another_digest_is_a_difference_on_the_recording_machine() -> None:
    recorded = golden.read()
    changed = copy.deepcopy(recorded)
    changed.digests["smoke"]["rdm"]["weights.safetensors"] = "0" * 64
    del changed.digests["adm"]["sample"]["samples.json"]
    assert compare(recorded, changed)[0] == ["adm/sample/samples.json", "smoke/rdm/weights.safetensors"]


def test_elsewhere_numbers_are_compared_with_tolerance() -> None:
    recorded = golden.read()
    elsewhere = copy.deepcopy(recorded)
    elsewhere.environment = "another processor"
    elsewhere.digests["smoke"]["rdm"]["weights.safetensors"] = "0" * 64
    loss = recorded.numbers["smoke"]["rdm"]["loss"]
    elsewhere.numbers["smoke"]["rdm"]["loss"] = loss * (1 + golden.METRIC_TOLERANCE / 2)
    lines, how = compare(recorded, elsewhere)
    assert not lines
    assert "NOT compared" in how
    elsewhere.numbers["smoke"]["rdm"]["loss"] = loss * 1.5
    elsewhere.numbers["smoke"]["rdm"]["rms of weights.safetensors"] *= 1.02
    names = [line.split(":")[0] for line in compare(recorded, elsewhere)[0]]
    assert names == ["smoke/rdm/loss", "smoke/rdm/rms of weights.safetensors"]
