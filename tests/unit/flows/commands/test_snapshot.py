"""`rcg snapshot` in a checkout: a source that lost half of its pictures is not believed at once."""

from pathlib import Path

import pytest

from components.collection.lock import read_lock
from components.errors import DataError
from flows.commands.snapshot import snapshot
from flows.execution.project import Project


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(10):
        (folder / f"{i}.png").write_bytes(b"picture %d" % i)
    monkeypatch.chdir(tmp_path)
    for name in ("RCG_SOURCE", "RCG_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    snapshot(Project.here(), str(folder), rebuild=False)
    return folder


def test_a_source_that_shrank_by_half_asks_for_a_flag(pictures: Path) -> None:
    for i in range(6):
        (pictures / f"{i}.png").unlink()
    before = Path("collection.lock").read_bytes()
    with pytest.raises(DataError, match="are gone in"):
        snapshot(Project.here(), None, rebuild=False)
    with pytest.raises(DataError, match=r"lost more than half[\s\S]*--shrink"):
        snapshot(Project.here(), None, rebuild=True)
    assert Path("collection.lock").read_bytes() == before
    snapshot(Project.here(), None, rebuild=True, shrink=True)
    assert read_lock(Path("collection.lock")).count == 4


def test_a_few_lost_pictures_and_another_source_need_none(pictures: Path, tmp_path: Path) -> None:
    (pictures / "0.png").unlink()
    snapshot(Project.here(), None, rebuild=True)
    assert read_lock(Path("collection.lock")).count == 9
    other = tmp_path / "other"
    other.mkdir()
    for i in range(3):
        (other / f"{i}.png").write_bytes(b"other %d" % i)
    snapshot(Project.here(), str(other), rebuild=True)
    assert read_lock(Path("collection.lock")).count == 3
