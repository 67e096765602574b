"""Git around a retraining, with real repositories: nothing of the user's is touched, nothing is lost."""

import shutil
import subprocess
from pathlib import Path

import pytest

from components.errors import ConfigError, RetryableError
from flows.retrain.checkout import Checkout


def _git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _commit(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    _git(folder, "add", name)
    _git(folder, "commit", "-qm", name)
    return _git(folder, "rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "repo"
    root.mkdir()
    _git(root, "init", "-q", "-b", "main")
    (root / ".gitignore").write_text(".rcg/\n")
    _commit(root, ".gitignore", ".rcg/\n")
    _commit(root, "a", "1")
    return Checkout(root)


def _retrained(checkout: Checkout, branch: str = "retrain/x") -> str:
    """A branch with one commit, made in its worktree."""
    folder = checkout.worktree(branch, checkout.head())
    (folder / "b").write_text("new")
    checkout.commit(folder, ["b"], "b")
    tip = checkout.tip(branch)
    assert tip is not None
    return tip


def test_a_branch_is_made_beside_a_dirty_tree_and_comes_to_main(checkout: Checkout) -> None:
    (checkout.root / "a").write_text("edited")
    assert checkout.is_dirty()
    tip = _retrained(checkout)
    assert (checkout.root / "a").read_text() == "edited"
    assert not (checkout.root / "b").exists()
    assert checkout.fast_forward("retrain/x", "main") is None
    assert checkout.head() == tip
    assert (checkout.root / "a").read_text() == "edited"
    checkout.remove_worktree("retrain/x")
    assert _git(checkout.root, "worktree", "list").count("\n") == 0


def test_a_worktree_that_was_left_behind_is_used_again_and_one_that_was_lost_is_made_again(checkout: Checkout) -> None:
    tip = _retrained(checkout)
    assert checkout.worktree("retrain/x", "nonsense") == checkout.root / ".rcg/retrain/x"
    checkout.remove_worktree("retrain/x")
    folder = checkout.worktree("retrain/x", "nonsense")
    assert (folder / "b").read_text() == "new"
    checkout.commit(folder, ["b"], "nothing changed")
    assert checkout.tip("retrain/x") == tip


@pytest.mark.parametrize("left", ["a lock", "half of the files", "no index", "no files", "nothing", "a broken link"])
def test_a_worktree_that_git_was_killed_in_is_whole_again(checkout: Checkout, left: str) -> None:
    _retrained(checkout)
    folder, kept = checkout.root / ".rcg/retrain/x", checkout.root / ".git/worktrees/x"
    (kept / "locked").write_text("initializing")
    (kept / "index.lock").touch()
    if left == "half of the files":
        (folder / "a").unlink()
    if left in ("no index", "no files"):
        (kept / "index").unlink()
    if left == "no files":
        (folder / "a").unlink()
        (folder / "b").unlink()
    if left == "nothing":
        shutil.rmtree(folder)
    if left == "a broken link":
        shutil.rmtree(kept)
    folder = checkout.worktree("retrain/x", "nonsense")
    assert ((folder / "a").read_text(), (folder / "b").read_text()) == ("1", "new")
    (folder / "b").write_text("newer")
    checkout.commit(folder, ["b"], "b again")
    assert not _git(folder, "status", "--porcelain")
    checkout.remove_worktree("retrain/x")
    assert not folder.exists()


def test_main_that_moved_meanwhile_stays_and_the_branch_too(checkout: Checkout) -> None:
    tip = _retrained(checkout)
    moved = _commit(checkout.root, "c", "1")
    reason = checkout.fast_forward("retrain/x", "main")
    assert reason is not None
    assert "main moved" in reason
    assert (checkout.head(), checkout.tip("retrain/x")) == (moved, tip)


def test_another_branch_that_is_checked_out_by_then_is_left_alone(checkout: Checkout) -> None:
    tip, before = _retrained(checkout), checkout.head()
    _git(checkout.root, "switch", "-qc", "work")
    assert checkout.fast_forward("retrain/x", "main") is None
    assert _git(checkout.root, "rev-parse", "main") == tip
    assert checkout.head() == before


def test_remote_gets_branch_and_main_and_wins_when_it_moved(checkout: Checkout, tmp_path: Path) -> None:
    remote = tmp_path / "remote.git"
    _git(tmp_path, "init", "-q", "--bare", "-b", "main", str(remote))
    _git(checkout.root, "remote", "add", "origin", str(remote))
    _git(checkout.root, "push", "-q", "origin", "main")
    tip = _retrained(checkout)
    checkout.push("retrain/x")
    assert _git(remote, "rev-parse", "retrain/x") == tip
    elsewhere = tmp_path / "elsewhere"
    _git(tmp_path, "clone", "-q", str(remote), str(elsewhere))
    assert Checkout(elsewhere).tip("retrain/x") == tip, "another machine goes on with the branch"
    _commit(elsewhere, "c", "1")
    _git(elsewhere, "push", "-q", "origin", "main")
    reason = checkout.fast_forward("retrain/x", "main")
    assert reason is not None
    assert "main of origin moved" in reason
    assert checkout.head() != tip
    _git(checkout.root, "remote", "set-url", "origin", str(tmp_path / "gone"))
    with pytest.raises(RetryableError, match="cannot be pushed"):
        checkout.push("retrain/x")


def test_detached_head_and_a_folder_without_git_are_named(checkout: Checkout, tmp_path: Path) -> None:
    assert checkout.target() == "main"
    _git(checkout.root, "checkout", "-q", "--detach")
    with pytest.raises(ConfigError, match="detached HEAD"):
        checkout.target()
    with pytest.raises(ConfigError, match="needs a git repository"):
        Checkout(tmp_path).target()
    assert checkout.show("HEAD", "a") == b"1"
    assert checkout.show("HEAD", "absent") is None
