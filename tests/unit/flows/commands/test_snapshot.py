"""`rcg snapshot` in a checkout: a source that lost half of its pictures is not believed; two branches are joined."""

import shutil
import subprocess
from pathlib import Path

import pytest

from components.collection.lock import read_lock
from components.collection.snapshot import verify_source
from components.collection.source import FolderSource
from components.errors import ConfigError, DataError, TamperedError
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


def git(*arguments: str, fails: bool = False) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", *identity, *arguments], capture_output=True, check=False)
    assert (done.returncode != 0) == fails, done.stderr


def on_a_branch(name: str, pictures: Path, added: dict[str, bytes]) -> None:
    """A branch of main whose only commit lists the added pictures."""
    git("checkout", "-q", "-b", name, "main")
    for key, data in added.items():
        (pictures / key).write_bytes(data)
    snapshot(Project.here(), None, rebuild=False)
    git("commit", "-qam", name)
    for key in added:
        (pictures / key).unlink()


@pytest.fixture(params=["marked", "binary"])
def committed(request: pytest.FixtureRequest, pictures: Path) -> Path:
    """A repository, with the .gitattributes of this one or without."""
    git("init", "-q", "-b", "main")
    if request.param == "binary":
        shutil.copy(Path(__file__).parents[4] / ".gitattributes", ".gitattributes")
        git("add", ".gitattributes")
    git("add", "collection.lock")
    git("commit", "-qm", "first")
    return pictures


def test_two_branches_that_both_list_new_pictures_are_joined(committed: Path) -> None:
    ours, theirs = {"a.png": b"a", "both.png": b"both"}, {"b.png": b"b", "both.png": b"both", "c.png": b"c"}
    on_a_branch("theirs", committed, theirs)
    on_a_branch("ours", committed, ours)
    before = read_lock(Path("collection.lock"))
    git("merge", "theirs", fails=True)
    if Path(".gitattributes").is_file():
        assert read_lock(Path("collection.lock")) == before
    for key, data in ours.items():
        (committed / key).write_bytes(data)
    with pytest.raises(DataError, match=r"2 gone: b\.png, c\.png"):
        snapshot(Project.here(), None, rebuild=False)
    for key, data in theirs.items():
        (committed / key).write_bytes(data)
    assert "what both branches of the merge list is joined" in snapshot(Project.here(), None, rebuild=False)
    lock = read_lock(Path("collection.lock"))
    assert [(c.name, c.count) for c in lock.chunks] == [("c00000", 10), ("c00001", 2), ("c00002", 2)]
    assert [c.digest for c in lock.chunks[:2]] == [c.digest for c in before.chunks]
    assert [e.key for e in lock.entries(lock.chunks[2])] == ["b.png", "c.png"]
    written = Path("collection.lock").read_bytes()
    snapshot(Project.here(), None, rebuild=False)
    git("commit", "-qam", "merged")
    assert "no change" in snapshot(Project.here(), None, rebuild=False)
    assert Path("collection.lock").read_bytes() == written


def test_branches_that_disagree_are_refused_by_name(committed: Path) -> None:
    on_a_branch("theirs", committed, {"a.png": b"one", "b.png": b"b"})
    on_a_branch("ours", committed, {"a.png": b"two"})
    git("merge", "theirs", fails=True)
    before = Path("collection.lock").read_bytes()
    with pytest.raises(DataError, match=r"different pictures under one name[\s\S]*1: a\.png"):
        snapshot(Project.here(), None, rebuild=False)
    assert Path("collection.lock").read_bytes() == before


def test_a_branch_that_started_over_is_not_joined(committed: Path) -> None:
    on_a_branch("theirs", committed, {"b.png": b"b"})
    git("checkout", "-q", "-b", "ours", "main")
    (committed / "0.png").write_bytes(b"other")
    snapshot(Project.here(), None, rebuild=True)
    git("commit", "-qam", "ours")
    git("merge", "theirs", fails=True)
    with pytest.raises(DataError, match="started its list over"):
        snapshot(Project.here(), None, rebuild=False)
    snapshot(Project.here(), None, rebuild=True)
    assert read_lock(Path("collection.lock")).count == 10


def test_a_branch_that_follows_links_needs_a_word(committed: Path) -> None:
    on_a_branch("theirs", committed, {"b.png": b"b"})
    git("checkout", "-q", "-b", "ours", "main")
    snapshot(Project.here(), None, rebuild=False, follows_links=True)
    git("commit", "-qam", "ours")
    git("merge", "theirs", fails=True)
    (committed / "b.png").write_bytes(b"b")
    with pytest.raises(DataError, match="--no-follow-links"):
        snapshot(Project.here(), None, rebuild=False)
    snapshot(Project.here(), None, rebuild=False, follows_links=False)
    assert not read_lock(Path("collection.lock")).follows_links


def test_conflict_markers_are_named(pictures: Path) -> None:
    path = Path("collection.lock")
    path.write_bytes(b"<<<<<<< HEAD\n" + path.read_bytes())
    with pytest.raises(TamperedError, match=r"conflict of a git merge[\s\S]*rcg snapshot"):
        read_lock(path)
