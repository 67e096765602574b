"""Git, as far as a retraining needs it: a worktree of its own, so that the user's files are never touched."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from components.errors import ConfigError, RetryableError, StoreError
from flows.children import git

_NOBODY = ("-c", "user.name=rcg", "-c", "user.email=rcg@localhost")


class Checkout:
    """A git repository and the branch that is checked out in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        """Output of a git command. Raises: ConfigError with git's own words."""
        done = git(cwd or self.root, *arguments)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            raise ConfigError(f"git {arguments[0]} failed in {cwd or self.root}", got=said[-1] if said else None)
        return done.stdout.decode(errors="replace").strip()

    def target(self) -> str:
        """The branch that is checked out. Raises: ConfigError without git, a commit or a branch."""
        if not (self.root / ".git").exists():
            raise ConfigError("retraining needs a git repository", got=self.root, fix="`git init`, then commit")
        try:
            return self.git("symbolic-ref", "--quiet", "--short", "HEAD")
        except ConfigError as error:
            raise ConfigError(
                "no branch is checked out here (detached HEAD), so there is none to bring the result to",
                got=self.head(),
                fix="`git switch main`",
            ) from error

    def head(self) -> str:
        """Raises: ConfigError when nothing was ever committed."""
        return self.git("rev-parse", "HEAD")

    def is_dirty(self) -> bool:
        return bool(self.git("status", "--porcelain", "--untracked-files=no"))

    def show(self, commit: str, path: str) -> bytes | None:
        """A file as committed; None when the commit does not have it."""
        done = git(self.root, "cat-file", "blob", f"{commit}:{path}")
        return done.stdout if done.returncode == 0 else None

    def remote(self) -> str | None:
        """The remote that branches are pushed to: origin, or the only one."""
        names = self.git("remote").split()
        return "origin" if "origin" in names else (names[0] if len(names) == 1 else None)

    def tip(self, branch: str) -> str | None:
        """Commit of a branch here or, if it is only there, at the remote."""
        with contextlib.suppress(ConfigError):
            return self.git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")
        remote = self.remote()
        if remote is None:
            return None
        with contextlib.suppress(ConfigError):
            self.git("fetch", "--quiet", remote, f"refs/heads/{branch}:refs/heads/{branch}")
            return self.git("rev-parse", f"refs/heads/{branch}")
        return None

    def worktree(self, branch: str, base: str) -> Path:
        """A folder where the branch is checked out, as it was left by an earlier, interrupted run."""
        folder = self.root / ".rcg" / branch
        if (folder / ".git").exists() and self._mended(folder):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        self.git("worktree", "prune")
        start = [branch] if self.tip(branch) else ["-b", branch, base]
        folder.parent.mkdir(parents=True, exist_ok=True)
        order = [str(folder), branch] if start == [branch] else ["-b", branch, str(folder), base]
        # Forced twice: git marks a worktree that it is making as locked, and may have been killed then.
        self.git("worktree", "add", "--quiet", "--force", "--force", *order)
        return folder

    def _mended(self, folder: Path) -> bool:
        """Whether the worktree is one; what a git that was killed left of its lock and its files is put right."""
        with contextlib.suppress(ConfigError):
            own = Path(self.git("rev-parse", "--absolute-git-dir", cwd=folder))
            (own / "index.lock").unlink(missing_ok=True)  # whoever retrains is alone
            (own / "locked").unlink(missing_ok=True)
            changes = self.git("status", "--porcelain", "--untracked-files=no", cwd=folder).splitlines()
            if any("D" in line[:2] for line in changes):
                self.git("reset", "--hard", "--quiet", cwd=folder)
            return True
        return False

    def remove_worktree(self, branch: str) -> None:
        """The branch stays."""
        folder = self.root / ".rcg" / branch
        if folder.exists():
            self.git("worktree", "remove", "--force", str(folder))

    def commit(self, folder: Path, paths: list[str], message: str) -> None:
        """Commit the files in a worktree, if they changed."""
        self.git("add", "--", *paths, cwd=folder)
        if self.git("diff", "--cached", "--name-only", cwd=folder):
            identity = () if self._has_identity() else _NOBODY
            self.git(*identity, "commit", "--quiet", "-m", message, cwd=folder)

    def _has_identity(self) -> bool:
        if "GIT_AUTHOR_NAME" in os.environ:
            return True
        with contextlib.suppress(ConfigError):
            return bool(self.git("config", "user.email"))
        return False

    def push(self, branch: str) -> None:
        """To the remote, if there is one. Raises: RetryableError when it does not take it."""
        remote = self.remote()
        if remote is None:
            return
        try:
            self.git("push", "--quiet", remote, f"refs/heads/{branch}:refs/heads/{branch}")
        except ConfigError as error:
            raise RetryableError(f"{branch} cannot be pushed to {remote}", got=error.got, fix="run it again") from error

    def fast_forward(self, branch: str, target: str) -> str | None:
        """Bring target to the branch, here and at the remote; None on success, else why it stays where it is."""
        remote = self.remote()
        if remote is not None:
            try:
                self.git("push", "--quiet", remote, f"refs/heads/{branch}:refs/heads/{target}")
            except ConfigError as error:
                return f"{target} of {remote} moved meanwhile ({error.got})"
        try:
            if self.git("branch", "--show-current") == target:
                self.git("merge", "--ff-only", "--quiet", branch)
            else:
                self.git("fetch", "--quiet", ".", f"refs/heads/{branch}:refs/heads/{target}")
        except ConfigError as error:
            return f"{target} moved meanwhile, or its files are edited ({error.got})"
        return None


def run(command: list[str], folder: Path, env: dict[str, str]) -> None:
    """A dvc command. Raises: StoreError with its last words."""
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise StoreError(f"{' '.join(command[-2:])} failed", got=said[-1] if said else None, fix="run it again")
