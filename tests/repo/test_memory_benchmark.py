"""The stages that benchmarks.memory measures run, each on what the one before it made."""

from pathlib import Path

import pytest

from benchmarks.memory import make_pictures
from benchmarks.memory_stages import collect, encode, evaluate


@pytest.mark.processes
def test_every_stage_runs(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 900)
    for stage in (collect, encode, evaluate):
        stage(tmp_path)
    assert {path.name for path in (tmp_path / "store/runs").iterdir()} == {"collect", "encode", "evaluate"}
