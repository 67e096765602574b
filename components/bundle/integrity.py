"""Whether a bundle's files are those that its manifest.json commits.

Needs the standard library alone: a bundle's model.py begins with this text, for it checks code before any is imported.
"""

import hashlib
import json
from pathlib import Path

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 1
"""schema_version of the manifest whose digest bundle_digest() works out."""
NOT_CONTENT = {MANIFEST, "run.json", "context.json", "registered_model_meta"}
"""Files that lie in a bundle's folder and are no part of its digest."""

Files = dict[str, dict[str, int | str]]
"""Name -> size and sha256."""


def read_files(folder: Path, but: tuple[str, ...] = ()) -> Files:
    """Every file that counts, as it is, but those whose names end so.

    Links to folders count as files that no manifest names, and so do compiled files but those that lie in a
    __pycache__, which are not read: Python would import what is behind them.
    """
    files: Files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        cached = path.suffix == ".pyc" and path.parent.name == "__pycache__"
        if path.is_symlink() and path.is_dir():
            files[name] = {"size": 0, "sha256": "a link"}
        elif path.is_file() and not cached and name not in NOT_CONTENT and not name.endswith(but):
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            files[name] = {"size": path.stat().st_size, "sha256": sha256}
    return files


def digest_of_files(files: Files) -> str:
    """The content digest: sha256 of the manifest that commits these files."""
    manifest = {"schema_version": MANIFEST_SCHEMA, "stage": "bundle", "files": files}
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def bundle_digest(folder: Path) -> str:
    """The content digest, worked out from the files that are there: what was drawn from is what is named."""
    return digest_of_files(read_files(folder))


def find_damage(folder: Path, files: Files, but: tuple[str, ...] = ()) -> list[str]:
    """How these files differ from those that manifest.json commits, but those whose names end so."""
    try:
        committed = json.loads((folder / MANIFEST).read_bytes())["files"]
        wanted = {name: entry for name, entry in committed.items() if not name.endswith(but)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return [f"{MANIFEST} is lost or damaged"]
    wrong = [name for name in wanted | files if wanted.get(name) != files.get(name)]
    how = {name: "lost" if name not in files else "altered" if name in wanted else "added" for name in wrong}
    return [f"{name} is {how[name]}" for name in sorted(wrong)]
