"""Captions, from metadata to a picture: every stage on a tiny collection, in this process."""

import base64
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from components.bundle.bundle import Bundle
from components.bundle.provenance import read_provenance
from components.bundle.request import Picture, Request, Upscale
from components.bundle.serving import Predictor
from components.cache.reader import open_cache
from components.cache.samples import Samples, oracle_rows
from components.errors import ConfigError
from components.images.pictures import to_uint8
from components.rdm import load_rdm
from components.text import load_text
from flows.commands.table import app
from flows.stages.evaluate.captions import asked as captions_asked
from tests.support.folders import FolderArtifact
from tests.support.pipelines import upsampler_section

ROOT = Path(__file__).parents[2]
COLORS = {"red": (230, 30, 30), "green": (30, 200, 30), "blue": (40, 60, 240)}
TEXT = {"kind": "text", "port": "vector", "drop_prob": 0.2, "missing": "null"}
WORDS = {
    "numerics": 1,
    "encoder": {"kind": "words", "dim": 32, "max_tokens": 6, "seed": 0},
    "states": True,
    "bpe": {"file": None, "n_ids": 300, "max_tokens": 12},
}
LEARNS = {"kind": "text_transformer", "drop_prob": 0.2, "missing": "null", "port": "vector_and_sequence"}
READER = LEARNS | {"width": 16, "depth": 1, "heads": 2, "project": True}
HEADS = {"dim": None, "seed": 0}
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
    for stage in ("encoder", "evaluate"):
        params[stage]["train"] |= {"steps": 6, "log_every": 3}
    params["text"] = WORDS | {"joint": HEADS | {"train": params["rdm"]["train"] | {"steps": 60}}}
    params["rdm"]["model"]["conditions"] = [TEXT]
    params["pixels"]["model"]["conditions"] += [TEXT | {"port": "sequence"}]
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
        for stage in ("collect", "encoder", "codec", "text", "encode", "rdm", "pixels", "sample", "evaluate", "bundle"):
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
    assert metrics["retrieval_r1"] > metrics["retrieval_r1_chance"]
    assert (metrics["longest_caption"], metrics["cut_share"], metrics["unknown_share"]) == (3, 0, 0)


def test_each_picture_has_the_embeddings_of_its_captions(project: Path) -> None:
    split = open_cache(_artifact(project, "encode")).training()
    index = np.arange(len(split))
    batch, captions = split.rows(index), split.captions(index)
    assert batch["text.mask"].tolist() == [c is not None for c in captions]
    assert batch["tokens.mask"].sum(1).tolist() == [3 if c else 0 for c in captions]
    for i, j in np.ndindex(8, 8):
        assert (captions[i] or [None])[0] != (captions[j] or [None])[0] or batch["text"][i].equal(batch["text"][j])


def _sample(*options: str) -> list[np.ndarray]:
    shutil.rmtree("drawn", ignore_errors=True)
    app(["sample", "--out", "drawn", *options], standalone_mode=False)
    return [np.asarray(Image.open(path)) for path in sorted(Path("drawn").glob("0*.png"))]


def test_the_evaluated_samples_are_of_held_out_captions(project: Path) -> None:
    assert load_rdm(_artifact(project, "rdm")).conditions == ("text",)
    parents = json.loads(_artifact(project, "sample").read_bytes("samples.json"))["parents"]
    assert set(parents) == {"rdm", "pixels", "codec", "encode"}
    grid = read_provenance((project / "artifacts/sample/pictures/grid.png").read_bytes())
    assert grid.condition == {"captions": "val"}


def test_captions_are_looked_for_in_the_samples(project: Path) -> None:
    sample, encode = (_artifact(project, stage) for stage in ("sample", "encode"))
    metrics = json.loads((project / "artifacts/evaluate/metrics.json").read_text())
    for name in ("r1", "r5", "cosine"):
        assert {f"caption_{name}", f"caption_{name}_floor", f"caption_{name}_real"} <= metrics.keys()
    told = captions_asked(Samples(sample), {"encode": encode})  # type: ignore[arg-type]
    assert told is not None
    asked = told.captions
    assert set(asked) <= {text for name in COLORS for text in (f"a {name} blot", f"the color {name}")}
    rows = oracle_rows(len(split := open_cache(encode).held_out("val", ("text",)).having(("text",))), 0, 8, seed=0)
    read = load_text(_artifact(project, "text")).rows(asked[:8])["text"]
    torch.testing.assert_close(split.rows(rows)["text"], read, msg="what the generators were given is of that caption")


@pytest.mark.usefixtures("project")
def test_pictures_of_several_texts_are_drawn_and_proved() -> None:
    texts = ("a red blot", "the color blue")
    drawn = _sample(*(f"--text={text}" for text in texts), "-n", "3", "--rdm-guidance", "2")
    assert len(drawn) == 6
    claim = read_provenance(Path("drawn/0004.png").read_bytes())
    assert claim.condition == {"text": "a red blot\nthe color blue"}
    assert claim.sampling["rdm"]["guidance"] == 2
    assert np.asarray(Image.open("drawn/prompts.png")).shape[0] > np.asarray(Image.open("drawn/grid.png")).shape[0]
    for name in ("0001.png", "0004.png", "grid.png"):
        app(["verify", f"drawn/{name}"], standalone_mode=False)  # exits unless it is the same
    bundle = Bundle.load("artifacts/bundle")
    whole = bundle.system.sampler(Request(n=6, text=texts, rdm_guidance=2.0))(range(6))
    assert whole["text"][:3].equal(whole["text"][:1].expand(3, -1))
    assert not whole["text"][0].equal(whole["text"][3])
    assert (to_uint8(bundle.system.images(whole)) == np.stack(drawn)).all()


@pytest.mark.usefixtures("project")
def test_an_empty_text_is_no_text_and_another_text_another_picture() -> None:
    bundle = Bundle.load("artifacts/bundle")
    plain, empty, red = (bundle.sample(Request(n=2, text=text)) for text in ((), ("",), ("a red blot",)))
    assert plain.equal(empty)
    assert not plain.equal(red)
    records = [{"text": "a red blot"}, {"text": "a red blot"}]
    answers = Predictor(bundle).predict(records, {"seed": 0})
    png = np.asarray(Image.open(io.BytesIO(base64.b64decode(answers[1]["image"]))))
    assert (png == to_uint8(red)[1]).all()


def test_a_text_is_mixed_with_a_picture(project: Path) -> None:
    other = project / "pictures/01.png"
    drawn = _sample("--text=a red blot", "--like", str(other), "--share", "0.25", "-n", "2")
    claim = read_provenance(Path("drawn/0001.png").read_bytes())
    assert set(claim.condition) == {"text", "like", "share"}
    app(["verify", "drawn/0001.png", "--like", str(other)], standalone_mode=False)
    bundle, picture = Bundle.load("artifacts/bundle"), Picture(other.read_bytes())
    text, mix = ({"text": ("a red blot",)}, {"text": ("a red blot",), "like": picture, "share": 0.25})
    rows = [bundle.system.sampler(Request(n=2, **how))(range(2)) for how in (text, mix)]  # type: ignore[arg-type]
    wanted = 0.75 * rows[0]["representation"] + 0.25 * bundle.represent(picture)
    torch.testing.assert_close(rows[1]["representation"], wanted)
    assert (to_uint8(bundle.system.images(rows[1])) == np.stack(drawn[:2])).all()
    with pytest.raises(ConfigError, match="mixes two"):
        Request(text=("a",), share=0.5)


def test_a_part_of_a_picture_is_filled_by_a_text(project: Path) -> None:
    picture, mask = project / "pictures/01.png", project / "mask.png"
    Image.fromarray(np.uint8([[0], [255]])).resize((8, 8), Image.Resampling.NEAREST).save(mask)
    how = [str(picture), "--mask", str(mask), "-n", "2"]
    for name, more in (("red", ["--text", "a red blot", "--rdm-guidance", "2"]), ("own", [])):
        app(["edit", *how, "--out", name, *more], standalone_mode=False)
    red, own = (np.asarray(Image.open(f"{name}/0001.png")) for name in ("red", "own"))
    assert (red[:4] == own[:4]).all()
    assert (red[4:] != own[4:]).any()
    assert set(read_provenance(Path("red/0001.png").read_bytes()).condition) == {"text", "image", "mask"}
    app(["verify", "red/0001.png", "--image", str(picture), "--mask", str(mask)], standalone_mode=False)


@pytest.mark.usefixtures("project")
def test_a_long_text_is_cut_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    long = "a red blot on the left of it"
    bundle = Bundle.load("artifacts/bundle")
    cut, same = (bundle.sample(Request(text=(text,))) for text in (long, "a red blot on the left"))
    assert cut.equal(same)
    assert "has 8 tokens; the first 6 are read" in caplog.text


def test_pictures_without_captions_are_steered_by_another_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The language-free protocol: encoder and representation generator imported, pixels trained on pictures alone."""
    monkeypatch.chdir(tmp_path)
    _make_pictures(tmp_path / "pictures")
    (tmp_path / "pictures/metadata.jsonl").unlink()
    params = _params()
    pins = {}
    for stage in ("encoder", "text", "rdm"):
        data = _artifact(project, stage).read_bytes("weights.safetensors")
        Path(f"{stage}.safetensors").write_bytes(data)
        pins[stage] = {"uri": f"{stage}.safetensors", "sha256": hashlib.sha256(data).hexdigest()}
    params["encoder"] |= {"train": None, "contrastive": None}
    params["encoder"]["model"]["weights"] = pins["encoder"]
    params["rdm"] |= {"weights": pins["rdm"], "train": None, "ema": None}
    params["text"]["joint"] |= {"train": None, "weights": pins["text"]}
    params["pixels"]["model"]["conditions"] = params["pixels"]["model"]["conditions"][:1]
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    app(["snapshot", "pictures"], standalone_mode=False)
    for stage in ("collect", "encoder", "codec", "text", "encode", "rdm", "pixels", "sample", "evaluate", "bundle"):
        app(["run", stage], standalone_mode=False)
    assert "caption_r1" not in json.loads(Path("artifacts/evaluate/metrics.json").read_text())
    red, blue = (_sample(f"--text=a {name} blot", "-n", "2", "--rdm-guidance", "2") for name in ("red", "blue"))
    assert (red[0] != blue[0]).any()


@pytest.fixture(scope="module")
def painted(project: Path) -> Path:
    """The same pictures, painted from the caption alone, which the painter learns to read."""
    params = _params() | {"rdm": None}
    params["pixels"]["model"]["conditions"] = [READER]
    params["sample"] |= {"representations": None, "rdm": None}
    sampling = params["sample"]["pixels"] | {"guidance": 0.0}
    train = params["pixels"]["train"] | {"steps": 4, "batch_size": 4}
    params["upsampler"] = upsampler_section(params["pixels"], READER, sampling=sampling, train=train)
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for stage in ("pixels", "upsampler", "sample", "evaluate", "bundle"):
        app(["run", stage], standalone_mode=False)
    return project


def test_a_painter_reads_by_itself(painted: Path) -> None:
    bundle = Bundle.load("artifacts/bundle")
    assert bundle.card.parts == ("encoder", "codec", "text", "pixels", "upsampler")
    assert (painted / "artifacts/bundle/text/bpe.json").read_bytes() == _artifact(painted, "text").read_bytes(
        "bpe.json"
    )
    requirements = (painted / "artifacts/bundle/requirements.txt").read_text()
    assert "tokenizers==" in requirements
    assert "transformers" not in requirements
    drawn = _sample("--text=a red blot", "--text=a blue blot", "-n", "2", "--guidance", "1.5")
    assert len(drawn) == 4
    app(["verify", "drawn/0003.png"], standalone_mode=False)
    claim = read_provenance(Path("drawn/0003.png").read_bytes())
    assert claim.condition == {"text": "a red blot\na blue blot"}
    plain, empty, red, other = (
        bundle.sample(Request(n=2, text=text)) for text in ((), ("",), ("a red blot",), ("A  RED blot",))
    )
    assert plain.equal(empty)
    assert not plain.equal(red)
    assert red.equal(other)
    parents = json.loads(_artifact(painted, "sample").read_bytes("samples.json"))["parents"]
    assert set(parents) == {"pixels", "codec", "encode"}


def test_an_upsampler_reads_the_text_too(painted: Path) -> None:
    bundle = Bundle.load("artifacts/bundle")
    assert bundle.system.upsampler is not None
    assert set(bundle.system.upsampler.conditions) == {"ids", "low_res"}
    small = painted / "pictures/01.png"
    large = _sample("--text=a red blot", "-n", "2", "--large")
    assert [image.shape for image in large] == [(16, 16, 3)] * 2
    app(["verify", "drawn/0001.png"], standalone_mode=False)
    upscaled = bundle.sample(Request(upscale=Upscale(image=Picture(small.read_bytes()))))
    assert upscaled.shape == (1, 3, 16, 16)  # without a text: of the empty one


def test_a_class_may_stand_beside_a_text() -> None:
    beside = Request(text=("a", "b"), class_name="c", n=2)
    assert beside.condition == {"class": "c", "text": "a\nb"}
    mix = Request(text=("a",), class_name="c", like=Picture(b"x"))
    assert set(mix.condition) == {"class", "text", "like", "share"}


def test_a_text_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="control characters"):
        Request(text=("a\x1b[2Jb",))
    with pytest.raises(ConfigError, match="exclude each other"):
        Request(text=("a",), representation=(1.0,))
    with pytest.raises(ConfigError, match="as many images"):
        Request(text=("a", "b"), n=3)
    with pytest.raises(ConfigError, match="no request"):
        Request(text=("a" * 200_000,))
