"""What new pictures cost: two in a hundred more, with encoder and codec kept, against encoding everything."""

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageOps

from benchmarks.commands import BIN, ROOT, run
from benchmarks.table import Row
from components.collection.packaged import ScansSource
from tests.support.projects import copy_code

NEW = 36
"""Two percent of the 1,797 digits."""
ENCODER = {"input_px": 224, "patch_px": 16, "width": 384, "depth": 12, "heads": 6}
"""ViT-S/16, the smallest encoder that is published: a second of overhead is small beside its work."""
VIEWS = {"seed": 0, "n_views": 4, "crop_area": [0.9, 1.0], "flip_prob": 0.0}


def incremental_rows() -> list[Row]:
    """Times are those of the stage itself, from its run.json: finding the old shards and joining all are in them."""
    with tempfile.TemporaryDirectory() as folder:
        project, pictures = Path(folder, "project"), Path(folder, "pictures")
        keys = _export_digits(pictures)
        copy_code(project)
        _write_params(project, [])
        run(["git", "init", "--quiet"], project)
        full = _encode(project, pictures)
        for key in keys[:NEW]:
            ImageOps.mirror(Image.open(pictures / key)).save(pictures / f"new-{Path(key).name}")
        fitted = [chunk["name"] for chunk in _artifact(project, "collect", "base.json")["chunks"]]
        _write_params(project, fitted)
        more = _encode(project, pictures)
    raw = {"full": full, "more": more, "new": NEW}
    return [Row("encoding 2% more pictures, of encoding all", "ViT-S/16, four views", more / full, "", 0.03, raw)]


def _export_digits(folder: Path) -> list[str]:
    demo = ScansSource()
    keys = [item.key for item in demo.list() if not item.is_metadata]
    for key in keys:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(demo.read(key))
    return keys


def _write_params(project: Path, base: list[str]) -> None:
    params = yaml.safe_load((ROOT / "presets/smoke.yaml").read_text())
    params["collect"] |= {"labels": "none", "base": base or "all"}
    params["encoder"]["model"] |= ENCODER
    params["encoder"]["px"] = ENCODER["input_px"]
    params["encoder"]["train"] = params["encoder"]["train"] | {"steps": 1, "warmup_steps": 0}
    params["encoder"]["probe"] |= {"max_images": 64}
    params["encode"]["views"] = VIEWS
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def _encode(project: Path, pictures: Path) -> float:
    """Seconds that the stage took."""
    settings = {"RCG_MLFLOW_URI": "off"}
    run([BIN / "rcg", "snapshot", str(pictures)], project, settings)
    for stage in ("collect", "encoder", "codec", "encode"):
        run([BIN / "rcg", "run", stage], project, settings)
    record = _artifact(project, "encode", "run.json", of_run=True)
    return float(record["ended_ms"] - record["started_ms"]) / 1000


def _artifact(project: Path, stage: str, name: str, *, of_run: bool = False) -> dict[str, Any]:
    """A JSON file of a stage's artifact, or of the run that made it."""
    folder = project / "artifacts" / stage
    if of_run:
        pointer = json.loads((folder / "run.json").read_text())
        folder = project / ".rcg/store" / pointer["prefix"]
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found
