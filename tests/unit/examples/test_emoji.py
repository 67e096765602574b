"""examples/emoji.py on packages of a few made-up pictures."""

import csv
import hashlib
import importlib.util
import io
import json
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[3] / "examples/emoji.py"


def _picture(kind: str, size: tuple[int, int]) -> bytes:
    """Red in the middle, transparent around."""
    picture = Image.new("RGBA", size)
    picture.paste((255, 0, 0, 255), (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def _pack(path: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def emoji(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with packages of a runner (anybody, a woman, a dark skin), a key cap and a letter without a group."""
    spec = importlib.util.spec_from_file_location("emoji_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path / "packages"
    folder.mkdir()
    said = [
        {"hexcode": "1F3C3", "label": "person running", "tags": ["race", "sport"], "group": 1},
        {"hexcode": "1F3C3-200D-2640-FE0F", "label": "woman running", "tags": [], "group": 1},
        {"hexcode": "0023-FE0F-20E3", "label": "keycap: #", "tags": ["hash"], "group": 8},
        {"hexcode": "1F1E6", "label": "regional indicator A"},
    ]
    groups = {"groups": {"1": "people-body", "8": "symbols"}}
    drawn = {"1f3c3": (72, 72), "1f3c3-200d-2640-fe0f": (64, 64), "1f3c3-1f3ff": (64, 64), "1f1e6": (64, 64)}
    twemoji = {f"img/twitter/64/{name}.png": _picture("PNG", size) for name, size in drawn.items()}
    fluent = {f"assets/{name}.webp": _picture("WEBP", (256, 128)) for name in ("1f3c3", "23-fe0f-20e3")}
    files = {
        "emoji-datasource-twitter-16.0.0.tgz": {**twemoji, "img/twitter/64/readme.txt": b"no picture"},
        "lobehub-fluent-emoji-3d-1.1.0.tgz": fluent,
        "emojibase-data-17.0.0.tgz": {
            "en/data.json": json.dumps(said).encode(),
            "meta/groups.json": json.dumps(groups).encode(),
        },
    }
    digests = {name: _pack(folder / name, content) for name, content in files.items()}
    pinned = {
        role: (spec, digest)
        for (role, (spec, _)), digest in zip(module.PACKAGES.items(), digests.values(), strict=True)
    }
    monkeypatch.setattr(module, "PACKAGES", pinned)
    return module


def test_styles_share_a_concept_and_captions_say_which(emoji: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "emoji"
    (target / "old").mkdir(parents=True)
    assert emoji.write(target, tmp_path / "packages", None) == 4
    with (target / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row["file_name"], []).append(row["text"])
    assert texts == {
        "fluent/1f3c3.png": ["person running", "person running, a glossy 3-D picture", "race, sport"],
        "fluent/23-20e3.png": ["keycap: #", "keycap: #, a glossy 3-D picture", "hash"],
        "twemoji/1f3c3.png": ["person running", "person running, a flat drawing", "race, sport"],
        "twemoji/1f3c3-200d-2640.png": ["woman running", "woman running, a flat drawing"],
    }
    assert {row["group"] for row in rows if "running" in row["text"]} == {"1f3c3"}
    assert {row["label"] for row in rows} == {"people-body", "symbols"}
    assert sorted(path.name for path in target.iterdir()) == ["fluent", "metadata.csv", "twemoji"]
    for key in texts:
        pixels = np.asarray(Image.open(target / key))
        assert pixels.shape == (64, 64, 3)
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[32, 32].tolist() == [255, 0, 0]


def test_the_same_packages_give_the_same_bytes(emoji: ModuleType, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert emoji.write(tmp_path / name, tmp_path / "packages", 2) == 2
    a, b = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.*")}.values() for n in ("a", "b")
    )
    assert list(a) == list(b)


def test_another_file_is_refused(emoji: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "packages/emojibase-data-17.0.0.tgz").write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"emojibase-data-17\.0\.0\.tgz is not the expected file"):
        emoji.write(tmp_path / "emoji", tmp_path / "packages", None)
    assert not (tmp_path / "emoji").exists()


@pytest.mark.parametrize(
    ("code_points", "concept"),
    [
        ("1f34e", "1f34e"),
        ("1f3c3-200d-2642-200d-27a1", "1f3c3"),
        ("1f468-200d-1f680", "1f9d1-200d-1f680"),
        ("1f468-200d-1f469-200d-1f467", "1f9d1-200d-1f9d1-200d-1f9d2"),
    ],
)
def test_a_concept_is_of_anybody(emoji: ModuleType, code_points: str, concept: str) -> None:
    assert emoji.concept(code_points) == concept
