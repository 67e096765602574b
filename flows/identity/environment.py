"""Under which circumstances something was made: recorded, never hashed."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flows.children import git

_LIBRARIES = ("torch", "numpy", "pillow", "timm", "pyarrow", "scikit-learn", "scipy", "safetensors", "ray")
_MOVE_PARTS = ("torch", "numpy", "pillow", "timm")


def library_versions() -> dict[str, str]:
    """Python and the libraries that can move an artifact's bits. Imports none of them."""
    return {"python": platform.python_version(), **_versions(_LIBRARIES)}


def part_versions() -> dict[str, str]:
    """The libraries whose versions must agree among the parts of one artifact (decoding, encoding)."""
    return _versions(_MOVE_PARTS)


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, str]:
    """The commit that is checked out in folder and whether files differ from it; empty without git."""
    try:
        commit, changes = git(folder, "rev-parse", "HEAD"), git(folder, "status", "--porcelain", "--untracked-files=no")
    except OSError:
        return {}
    if commit.returncode != 0 or changes.returncode != 0:
        return {}
    return {"git_commit": commit.stdout.decode().strip(), "git_dirty": str(bool(changes.stdout)).lower()}
