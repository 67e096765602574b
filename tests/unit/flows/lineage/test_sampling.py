"""`rcg sample`: files with provenance, each way to ask, and named mistakes before anything is written."""

import gc
import hashlib
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from components.bundle.bundle import Bundle
from components.bundle.integrity import bundle_digest
from components.bundle.provenance import read_provenance
from components.bundle.request import Picture, Request
from components.errors import ConfigError, DataError, MissingError, RcgError
from components.images.pictures import to_uint8
from flows.execution.project import Project
from flows.lineage.sampling import open_picture, write_samples
from tests.support.bundles import make_bundle
from tests.support.folders import FolderArtifact, draw_bars


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> FolderArtifact:
    return make_bundle(tmp_path_factory.mktemp("rcg"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for i, image in enumerate(draw_bars(2)[0]):
        Image.fromarray(image).save(f"{i}.png")


def _sample(bundle: FolderArtifact, **changes: Any) -> Request:
    """Run `rcg sample` with a request for three images, changed; returns the request."""
    places = {"model": str(bundle.root), "out": Path("drawn"), "nearest": None}
    request = Request(**{"n": 3, "seed": 1, **{k: v for k, v in changes.items() if k not in places}})
    write_samples(request, Project.here(), **{k: changes.get(k, v) for k, v in places.items()})
    return request


def _two() -> tuple[Picture, Picture]:
    return open_picture(Path("0.png")), open_picture(Path("1.png"))


def _drawn(n: int) -> np.ndarray:
    return np.stack([np.asarray(Image.open(f"drawn/{i:04d}.png")) for i in range(n)])


def test_plain(bundle: FolderArtifact) -> None:
    request = _sample(bundle)
    assert (_drawn(3) == to_uint8(Bundle.load(bundle.root).sample(request))).all()
    assert sorted(p.name for p in Path("drawn").iterdir()) == ["0000.png", "0001.png", "0002.png", "grid.png"]


def test_an_npz_holds_all_pictures_in_order(bundle: FolderArtifact) -> None:
    write_samples(Request(n=4, seed=1), Project.here(), model=str(bundle.root), out=Path("drawn"), npz=Path("to/a.npz"))
    with np.load("to/a.npz") as file:
        assert file.files == ["arr_0"]
        assert np.array_equal(file["arr_0"], _drawn(4))


def test_every_picture_says_where_it_came_from(bundle: FolderArtifact) -> None:
    _sample(bundle, like=open_picture(Path("0.png")), guidance=1.5, steps=2)
    claim = read_provenance(Path("drawn/0002.png").read_bytes())
    assert (claim.bundle, claim.seed, claim.index, claim.n) == (bundle.digest, 1, 2, 3)
    assert claim.condition == {"like": hashlib.sha256(Path("0.png").read_bytes()).hexdigest()}
    assert (claim.sampling["pixels"]["guidance"], claim.sampling["pixels"]["steps"]) == (1.5, 2)
    assert claim.sampling["batch_size"] == Bundle.load(bundle.root).card.sampling.batch_size
    assert claim.platform is not None
    assert read_provenance(Path("drawn/grid.png").read_bytes()).shown == 3


@pytest.mark.parametrize("share", [None, 0.25])
def test_what_is_written_is_what_the_bundle_samples(bundle: FolderArtifact, share: float | None) -> None:
    request = _sample(bundle, between=_two(), share=share, n=5)
    assert (_drawn(5) == to_uint8(Bundle.load(bundle.root).sample(request))).all()
    assert read_provenance(Path("drawn/0000.png").read_bytes()).condition.get("share") == (share and str(share))


def test_nearest_training_pictures(bundle: FolderArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    parents = FolderArtifact(bundle.root.parent / "parents" / "encode")
    monkeypatch.setattr("flows.lineage.nearest._cache", lambda _bundle, _project, _scratch: parents)
    _sample(bundle, nearest=2)
    sheet, drawn = np.asarray(Image.open("drawn/nearest.png")), _drawn(3)
    assert sheet.shape[0] > 2 * drawn.shape[1]
    assert sheet.ndim == 3


def test_an_interrupted_call_is_continued_with_the_same_bytes(bundle: FolderArtifact) -> None:
    _sample(bundle, n=9)
    expected = {path.name: path.read_bytes() for path in Path("drawn").iterdir()}
    Path("drawn/0008.png").unlink()
    Path("drawn/grid.png").unlink()
    Path("drawn/0003.png").write_bytes(expected["0003.png"][:-12])
    Path("drawn/0004.png").write_bytes(expected["0005.png"])
    kept = Path("drawn/0000.png").stat().st_ino
    _sample(bundle, n=9)
    assert {path.name: path.read_bytes() for path in Path("drawn").iterdir()} == expected
    assert Path("drawn/0000.png").stat().st_ino == kept
    _sample(bundle, n=9, seed=2)
    assert Path("drawn/0000.png").read_bytes() != expected["0000.png"]


def test_pictures_of_another_request_beside_them_are_told(
    bundle: FolderArtifact, caplog: pytest.LogCaptureFixture
) -> None:
    _sample(bundle, n=9)
    assert not caplog.records
    _sample(bundle, n=9)
    assert not caplog.records
    _sample(bundle, seed=2)
    assert "6 pictures of another request lie in drawn, from 0003.png on" in caplog.text
    assert Path("drawn/0008.png").is_file()


class _EnoughError(Exception):
    pass


def test_a_thousand_million_pictures_begin_at_once(bundle: FolderArtifact) -> None:
    def stop(_done: int) -> None:
        raise _EnoughError

    def peak(n: int) -> int:
        request = Request(n=n, seed=1, like=open_picture(Path("0.png")))
        tracemalloc.start()
        try:
            with pytest.raises(_EnoughError):
                write_samples(request, Project.here(), model=str(bundle.root), out=Path(f"of {n}"), on_written=stop)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(9)
    assert peak(10**9) < peak(10) + 2**20
    assert Path(f"of {10**9}/0000.png").is_file()


def test_memory_does_not_grow_with_the_number(bundle: FolderArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.lineage.sampling.SHOWN", 4)

    def live(n: int) -> int:
        most = 0

        def count(_done: int) -> None:
            nonlocal most
            gc.collect()  # bundles of earlier calls are cycles
            most = max(most, sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects()))

        request = Request(n=n, seed=n)
        gc.freeze()  # what was there before is neither collected nor counted: it may be a million objects
        try:
            write_samples(request, Project.here(), model=str(bundle.root), out=Path("drawn"), on_written=count)
        finally:
            gc.unfreeze()
        return most

    live(6)
    few, many = live(6), live(60)
    assert many <= few + 2
    assert read_provenance(Path("drawn/grid.png").read_bytes()).shown == 4


def test_class(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, "class")
    request = _sample(bundle, class_name="post")
    assert (_drawn(3) == to_uint8(Bundle.load(bundle.root).sample(request))).all()


def test_digest_ignores_what_is_not_content_and_nothing_else(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    digest = bundle.digest
    for name in ("manifest.json", "run.json", "context.json", "registered_model_meta", "components/__pycache__/a.pyc"):
        bundle.write_bytes(name, b"{}")
    assert bundle_digest(bundle.root) == digest
    for name in ("extra.txt", "json.pyc", "components/bundle/wave.pyc"):  # Python imports compiled files without source
        bundle.write_bytes(name, b"")
        assert bundle_digest(bundle.root) != digest
        (bundle.root / name).unlink()
    (bundle.root / "json").symlink_to(tmp_path)
    assert bundle_digest(bundle.root) != digest


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"like": Path("0.png"), "class_name": "bar"}, ConfigError, "exclude each other"),
        ({"between": (Path("0.png"), Path("1.png")), "n": 1}, ConfigError, "between two is out of range"),
        ({"share": 0.5}, ConfigError, "--between"),
        ({"between": (Path("0.png"), Path("1.png")), "share": 1.5}, ConfigError, "out of range"),
        ({"nearest": 2}, MissingError, "training pictures"),
        ({"like": Path("none.png")}, MissingError, "no such picture"),
        ({"like": Path("text.png")}, DataError, r"text\.png cannot be used[\s\S]*not a picture"),
        ({"class_name": "bar"}, ConfigError, "does not take a class"),
        ({"steps": 10**6}, ConfigError, "steps"),
        ({"guidance": -1.0}, ConfigError, "guidance"),
        ({"seed": -1}, ConfigError, "negative"),
        ({"out": Path("0.png")}, ConfigError, "not a folder"),
        ({"model": "nowhere"}, MissingError, "not there"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    bundle: FolderArtifact, changes: dict[str, object], error: type[RcgError], message: str
) -> None:
    Path("text.png").write_text("this is text")
    with pytest.raises(error, match=message):
        _sample(bundle, **{name: _opened(name, value) for name, value in changes.items()})
    assert not Path("drawn").exists()


def _opened(name: str, value: Any) -> Any:
    if name == "like":
        return open_picture(value)
    return tuple(map(open_picture, value)) if name == "between" else value
