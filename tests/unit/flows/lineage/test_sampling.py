"""`rcg sample`: files with provenance, each way to ask, and named mistakes before anything is written."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.bundle.provenance import bundle_digest, read_provenance
from components.bundle.system import RCG
from components.errors import ConfigError, DataError, MissingError, RcgError
from components.images.pictures import to_uint8
from flows.execution.project import Project
from flows.lineage.sampling import SampleRequest, write_samples
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


def _request(bundle: FolderArtifact, **changes: Any) -> SampleRequest:
    values: dict[str, Any] = {"model": str(bundle.root), "out": Path("drawn"), "n": 3, "seed": 1}
    return SampleRequest(**values | changes)


def draw(request: SampleRequest) -> None:
    write_samples(request, Project.here())


def _drawn(n: int) -> np.ndarray:
    return np.stack([np.asarray(Image.open(f"drawn/{i:04d}.png")) for i in range(n)])


def test_plain(bundle: FolderArtifact) -> None:
    draw(_request(bundle))
    assert (_drawn(3) == to_uint8(RCG.load(bundle.root).sample(3, 1))).all()
    assert sorted(p.name for p in Path("drawn").iterdir()) == ["0000.png", "0001.png", "0002.png", "grid.png"]


def test_every_picture_says_where_it_came_from(bundle: FolderArtifact) -> None:
    draw(_request(bundle, like=Path("0.png"), guidance=1.5, steps=2))
    claim = read_provenance(Path("drawn/0002.png").read_bytes())
    assert (claim.bundle, claim.seed, claim.index, claim.n) == (bundle.digest, 1, 2, 3)
    assert claim.condition == {"like": hashlib.sha256(Path("0.png").read_bytes()).hexdigest()}
    assert (claim.sampling["pixels"]["guidance"], claim.sampling["pixels"]["steps"]) == (1.5, 2)
    assert claim.sampling["batch_size"] == RCG.load(bundle.root).card.sampling.batch_size
    assert claim.platform is not None
    assert read_provenance(Path("drawn/grid.png").read_bytes()).shown == 3


def test_like_and_between(bundle: FolderArtifact) -> None:
    rcg = RCG.load(bundle.root)
    a, b = (rcg.read_picture(Path(name).read_bytes()) for name in ("0.png", "1.png"))
    draw(_request(bundle, like=Path("0.png")))
    assert (_drawn(3) == to_uint8(rcg.variations(a, 3, 1))).all()
    draw(_request(bundle, between=(Path("0.png"), Path("1.png")), n=5))
    assert (_drawn(5) == to_uint8(rcg.interpolate(a, b, 5, 1))).all()


def test_a_mixture_of_two_has_many_seeds(bundle: FolderArtifact) -> None:
    rcg = RCG.load(bundle.root)
    a, b = (rcg.read_picture(Path(name).read_bytes()) for name in ("0.png", "1.png"))
    draw(_request(bundle, between=(Path("0.png"), Path("1.png")), share=0.25))
    assert (_drawn(3) == to_uint8(rcg.mixture(a, b, 0.25, 3, 1))).all()
    assert len({image.tobytes() for image in _drawn(3)}) == 3
    ends = [rcg.mixture(a, b, share, 2, 1) for share in (0.0, 1.0)]
    for end, picture in zip(ends, (a, b), strict=True):
        np.testing.assert_allclose(end, rcg.variations(picture, 2, 1), atol=1e-2)
    assert read_provenance(Path("drawn/0000.png").read_bytes()).condition["share"] == "0.25"


def test_nearest_training_pictures(bundle: FolderArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    parents = FolderArtifact(bundle.root.parent / "parents" / "encode")
    monkeypatch.setattr("flows.lineage.nearest._cache", lambda _bundle, _project, _scratch: parents)
    draw(_request(bundle, nearest=2))
    sheet, drawn = np.asarray(Image.open("drawn/nearest.png")), _drawn(3)
    assert sheet.shape[0] > 2 * drawn.shape[1]
    assert sheet.ndim == 3


def test_class(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, "class")
    draw(_request(bundle, class_name="post"))
    assert (_drawn(3) == to_uint8(RCG.load(bundle.root).sample(3, 1, label=1))).all()


def test_digest_ignores_what_is_not_content_and_nothing_else(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    digest = bundle.digest
    for name in ("manifest.json", "run.json", "context.json", "registered_model_meta", "components/__pycache__/a.pyc"):
        bundle.write_bytes(name, b"{}")
    assert bundle_digest(bundle.root) == digest
    bundle.write_bytes("extra.txt", b"")
    assert bundle_digest(bundle.root) != digest


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"like": Path("0.png"), "class_name": "bar"}, ConfigError, "exclude each other"),
        ({"between": (Path("0.png"), Path("1.png")), "n": 1}, ConfigError, "at least two"),
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
        draw(_request(bundle, **changes))
    assert not Path("drawn").exists()
