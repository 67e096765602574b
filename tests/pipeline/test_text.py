"""Captions, from metadata to a picture: every stage on a tiny collection, in this process."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from components.cache.reader import open_cache
from components.rdm import load_rdm
from flows.__main__ import app
from tests.support.folders import FolderArtifact

ROOT = Path(__file__).parents[2]
COLORS = {"red": (230, 30, 30), "green": (30, 200, 30), "blue": (40, 60, 240)}
TEXT = {"kind": "text", "port": "vector", "drop_prob": 0.2, "missing": "null"}
WORDS = {"numerics": 1, "encoder": {"kind": "words", "dim": 32, "max_tokens": 6, "seed": 0}, "states": True}
N = 60


def _make_pictures(folder: Path) -> None:
    """Blots of a color on white; each fifth has no caption, each other two or one."""
    folder.mkdir()
    rng, lines = np.random.default_rng(0), []
    for i in range(N):
        name = list(COLORS)[i % 3]
        pixels = np.full((8, 8, 3), 255.0)
        x, y = rng.integers(0, 5, 2)
        pixels[y : y + 3, x : x + 4] = COLORS[name]
        Image.fromarray((pixels + rng.normal(0, 9, pixels.shape)).clip(0, 255).astype(np.uint8)).save(
            folder / f"{i:02d}.png"
        )
        text = None if i % 5 == 4 else [f"a {name} blot", f"the color {name}"][: 1 + i % 2]
        lines.append(json.dumps({"file_name": f"{i:02d}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def _params() -> dict[str, Any]:
    params: dict[str, Any] = json.loads(json.dumps(yaml.safe_load((ROOT / "presets/smoke.yaml").read_text())))
    params["collect"] |= {"labels": "none"}
    params["codec"]["model"]["channels"] = 3
    params["text"] = WORDS
    params["rdm"]["model"]["conditions"] = [TEXT]
    params["pixels"]["model"]["conditions"] += [TEXT | {"port": "sequence"}]
    params["pixels"]["model"]["kind"] = "dit"
    return params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root, before = tmp_path_factory.mktemp("text"), Path.cwd()
    _make_pictures(root / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RCG_")]:
            patch.delenv(name)
        patch.setenv("RCG_MLFLOW_URI", "off")
        patch.chdir(root)
        Path("params.yaml").write_text(yaml.safe_dump(_params(), sort_keys=False))
        app(["snapshot", "pictures"], standalone_mode=False)
        for stage in ("collect", "encoder", "codec", "text", "encode", "rdm", "pixels"):
            app(["run", stage], standalone_mode=False)
        yield root
    assert Path.cwd() == before


def _artifact(project: Path, stage: str) -> FolderArtifact:
    """All files of a stage's run, which the store holds."""
    prefix = json.loads((project / f"artifacts/{stage}/run.json").read_text())["prefix"]
    keys = json.loads((project / ".rcg/store" / prefix / "run.json").read_text())["keys"]
    out = FolderArtifact(project / "read" / stage)
    for name, key in keys.items():
        out.write_bytes(name, (project / ".rcg/store" / key).read_bytes())
    return out


def test_the_stage_says_how_captions_are_read(project: Path) -> None:
    metrics = json.loads((project / "artifacts/text/metrics.json").read_text())
    assert metrics["captioned"] == N - N // 5
    assert metrics["distinct_captions"] == 6
    assert (metrics["longest_caption"], metrics["cut_share"], metrics["unknown_share"]) == (3, 0, 0)


def test_each_picture_has_the_embeddings_of_its_captions(project: Path) -> None:
    split = open_cache(_artifact(project, "encode")).training()
    index = np.arange(len(split))
    batch, captions = split.rows(index), split.captions(index)
    assert batch["text.mask"].tolist() == [c is not None for c in captions]
    assert batch["tokens.mask"].sum(1).tolist() == [3 if c else 0 for c in captions]
    for i, j in np.ndindex(8, 8):
        assert (captions[i] or [None])[0] != (captions[j] or [None])[0] or batch["text"][i].equal(batch["text"][j])


def test_the_bundle_is_conditioned_on_text(project: Path) -> None:
    assert load_rdm(_artifact(project, "rdm")).conditions == ("text",)
