"""What a pipeline that was made once more has in common with the first: all but when and where it was made."""

from pathlib import Path
from typing import Any

import yaml

from flows.runs.ancestry import CONTEXT


def lock_content(lock: Path) -> dict[str, Any]:
    """dvc.lock's stages by name, without the size and MD5 of artifacts/bundle: its context.json holds times."""
    stages: dict[str, Any] = yaml.safe_load(lock.read_text())["stages"]
    stages["bundle"]["outs"] = [out["path"] for out in stages["bundle"]["outs"]]
    return stages


def artifact_content(root: Path) -> dict[str, bytes]:
    """Every file of artifacts/ but the bundle's context.json."""
    paths = (path for path in (root / "artifacts").rglob("*") if path.is_file() and path.name != CONTEXT)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
