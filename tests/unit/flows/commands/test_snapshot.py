"""`rcg snapshot` in a checkout: a source that lost half of its pictures is not believed at once."""

from pathlib import Path

import pytest

from components.collection.lock import read_lock
from components.collection.snapshot import verify_source
from components.collection.source import FolderSource
from components.errors import ConfigError, DataError
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


def test_it_tells_what_it_leaves_out_and_rows_of_a_wrong_folder(pictures: Path) -> None:
    for name in ("a.heic", "b.HEIC", "c.mov"):
        (pictures / name).write_bytes(b"")
    (pictures / "sub").mkdir()
    (pictures / "sub" / "x.png").write_bytes(b"x")
    (pictures / "sub" / "metadata.csv").write_bytes(b"file_name,label\nsub/x.png,cat\ny.png,dog\n")
    told = snapshot(Project.here(), None, rebuild=False)
    assert "11 pictures in 2 chunk(s), 1 new, 2 .heic, 1 .mov left out" in told
    assert "2 rows of metadata are about no listed picture: sub/sub/x.png (is it sub/x.png?), sub/y.png" in told


def test_followed_links_are_remembered(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.png").write_bytes(b"elsewhere")
    (pictures / "link.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(DataError, match="--follow-links"):
        snapshot(Project.here(), None, rebuild=False)
    assert "1 new" in snapshot(Project.here(), None, rebuild=False, follows_links=True)
    assert "no change" in snapshot(Project.here(), None, rebuild=False)
    assert verify_source(FolderSource(pictures), read_lock(Path("collection.lock"))) == 0
    with pytest.raises(DataError, match="out of the folder"):
        snapshot(Project.here(), None, rebuild=True, follows_links=False)
    with pytest.raises(ConfigError, match="only a folder"):
        snapshot(Project.here(), "demo", rebuild=True, follows_links=True)


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
