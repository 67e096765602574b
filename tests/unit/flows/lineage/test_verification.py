"""`rcg verify`: each verdict from a real picture, and what cannot be decided or trusted."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.bundle.provenance import read_provenance, with_provenance
from components.bundle.request import Request
from components.errors import ArtifactError, ConfigError, MissingError, TamperedError
from components.images.pictures import grid, png_bytes
from flows.execution.project import Project
from flows.lineage.sampling import open_picture, write_samples
from flows.lineage.verification import MATCH_DB, Finding, VerifyRequest, compare
from flows.lineage.verification import verify as verify_in
from flows.stages.sample import run as sample
from flows.stages.sample.params import SampleParams
from tests.support.bundles import make_bundle
from tests.support.cli import rcg
from tests.support.folders import FolderArtifact, FolderInputs, draw_bars
from tests.support.toys import worker


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> FolderArtifact:
    return make_bundle(tmp_path_factory.mktemp("rcg"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RCG_MLFLOW_URI", "off")
    for i, image in enumerate(draw_bars(2)[0]):
        Image.fromarray(image).save(f"{i}.png")


def _draw(bundle: FolderArtifact, **changes: Any) -> None:
    request = Request(**{"n": 5, "seed": 1} | changes)
    write_samples(request, Project.here(), model=str(bundle.root), out=Path("drawn"))


def verify(request: VerifyRequest) -> Finding:
    return verify_in(request, Project.here())


def _verdict(bundle: FolderArtifact, name: str = "drawn/0004.png", *given: str) -> str:
    return verify(VerifyRequest(Path(name), str(bundle.root), tuple(map(Path, given)))).verdict


def _altered(name: str, noise: int, **changes: Any) -> None:
    """Write altered.png: other pixels, the claim changed."""
    data = Path(name).read_bytes()
    with Image.open(name) as picture:
        pixels = np.asarray(picture)
    moved = np.where(pixels >= 128, pixels.astype(int) - noise, pixels.astype(int) + noise).astype(np.uint8)
    claim = read_provenance(data).model_copy(update=changes)
    Path("altered.png").write_bytes(with_provenance(png_bytes(moved), claim))


OTHER_MACHINE = {"platform": {"machine": "other", "threads": "1"}}


def test_drawn_here_is_identical(bundle: FolderArtifact) -> None:
    _draw(bundle)
    assert [_verdict(bundle, f"drawn/{name}.png") for name in ("0000", "0003", "0004", "grid")] == ["identical"] * 4
    assert rcg("verify", "drawn/0004.png", "--model", str(bundle.root)).startswith("identical:")


def test_with_a_class_and_other_options(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "made", "class")
    _draw(bundle, class_name="post", guidance=2.0, steps=2, batch_size=2)
    assert _verdict(bundle) == "identical"


def test_drawn_from_given_pictures(bundle: FolderArtifact) -> None:
    _draw(bundle, like=open_picture(Path("0.png")))
    assert _verdict(bundle) == "not decidable"
    assert _verdict(bundle, "drawn/0004.png", "0.png") == "identical"
    with pytest.raises(ConfigError, match="not the pictures"):
        _verdict(bundle, "drawn/0004.png", "1.png")
    _draw(bundle, between=(open_picture(Path("0.png")), open_picture(Path("1.png"))))
    assert _verdict(bundle, "drawn/0001.png", "0.png", "1.png") == "identical"
    assert _verdict(bundle, "drawn/grid.png", "0.png", "1.png") == "identical"
    _draw(bundle, between=(open_picture(Path("0.png")), open_picture(Path("1.png"))), share=0.3)
    assert _verdict(bundle, "drawn/0004.png", "0.png", "1.png") == "identical"
    said = read_provenance(Path("drawn/0004.png").read_bytes()).condition
    _altered("drawn/0004.png", 0, condition=said | {"share": "0.8"})
    assert _verdict(bundle, "altered.png", "0.png", "1.png") == "differs", "another share is another picture"


def test_altered_pixels_and_false_claims_differ(bundle: FolderArtifact) -> None:
    _draw(bundle)
    _altered("drawn/0004.png", 1)
    assert _verdict(bundle, "altered.png") == "differs", "same platform: no rounding explains it"
    _altered("drawn/0004.png", 0, index=3)
    assert _verdict(bundle, "altered.png") == "differs"
    _altered("drawn/0004.png", 0, seed=2)
    assert _verdict(bundle, "altered.png") == "differs"
    claim = read_provenance(Path("drawn/0004.png").read_bytes())
    Path("altered.png").write_bytes(with_provenance(png_bytes(np.zeros((3, 3, 3), np.uint8)), claim))
    assert rcg("verify", "altered.png", "--model", str(bundle.root), code=3).startswith("differs:")


def test_another_platform_matches_within_rounding(bundle: FolderArtifact) -> None:
    _draw(bundle)
    _altered("drawn/0004.png", 1, **OTHER_MACHINE)
    finding = verify(VerifyRequest(Path("altered.png"), str(bundle.root)))
    assert finding.verdict == "matches"
    assert finding.psnr_db == pytest.approx(20 * np.log10(255))
    _altered("drawn/0004.png", 40, **OTHER_MACHINE)
    finding = verify(VerifyRequest(Path("altered.png"), str(bundle.root)))
    assert finding.verdict == "differs"
    assert finding.psnr_db is not None
    assert finding.psnr_db < MATCH_DB


def test_tokens_of_another_platform_are_not_decidable() -> None:
    picture = np.full((4, 4, 3), 100, np.uint8)
    found = compare(picture, picture + 90, same_platform=False, tokens=True)
    assert found.verdict == "not decidable"
    assert compare(picture, picture + 90, same_platform=True, tokens=True).verdict == "differs"


def test_grid_of_the_sample_stage(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "made")
    parents = tmp_path / "made" / "parents"
    values = bundle.read_json("rcg.json")["sampling"] | {"numerics": 1, "n": 8, "grid": 4, "representations": "rdm"}
    for how, verdict in (("rdm", "identical"), ("oracle", "not decidable")):
        out = FolderArtifact(tmp_path / how)
        params = SampleParams.model_validate(values | {"representations": how, "seed": 6})
        sample.run(params, FolderInputs(parents), out, worker(tmp_path))
        found = verify(VerifyRequest(out.root / "pictures/grid.png", str(bundle.root)))
        assert found.verdict in (verdict, "matches")
        assert (found.verdict == "not decidable") == (verdict == "not decidable")
    weights = bundle.path("encoder/weights.safetensors")  # not sampled with, and yet the bundle is not the one
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(TamperedError, match=r"encoder/weights\.safetensors is altered"):
        verify(VerifyRequest(tmp_path / "rdm/pictures/grid.png", str(bundle.root)))
    other = make_bundle(tmp_path / "other", with_encoder=False)
    path = other.root / "lineage.json"
    path.write_text(path.read_text().replace(other.read_json("lineage.json")["parents"]["rdm"]["content"], "f" * 64))
    other.commit()
    with pytest.raises(ArtifactError, match="the bundle's rdm is not the one"):
        verify(VerifyRequest(tmp_path / "rdm/pictures/grid.png", str(other.root)))


def test_the_bundle_is_found_beside_or_its_absence_named(bundle: FolderArtifact) -> None:
    _draw(bundle)
    request = VerifyRequest(Path("drawn/0004.png"))
    with pytest.raises(MissingError, match=r"not here[\s\S]*" + bundle.digest):
        verify(request)
    shutil.copytree(bundle.root, "artifacts/bundle")
    assert verify(request).verdict == "identical"


def test_another_or_a_tampered_bundle_is_named(bundle: FolderArtifact, tmp_path: Path) -> None:
    _draw(bundle)
    shutil.copytree(bundle.root, "tampered")
    card = Path("tampered/rcg.json")
    card.write_text(card.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(TamperedError, match=r"damaged[\s\S]*rcg\.json is altered"):
        verify(VerifyRequest(Path("drawn/0004.png"), "tampered"))
    FolderArtifact(Path("tampered")).commit()
    with pytest.raises(ArtifactError, match=r"another bundle[\s\S]*" + bundle.digest):
        verify(VerifyRequest(Path("drawn/0004.png"), "tampered"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"condition": {"class": "bar"}}, r"cannot be sampled again[\s\S]*class"),
        ({"sampling": {"batch_size": 3, "rdm": {}, "pixels": {"kind": "dit"}}}, "cannot be sampled again"),
        ({"sampling": {"batch_size": 3}}, "cannot be sampled again"),
    ],
)
def test_claims_that_cannot_be_followed_are_named(
    bundle: FolderArtifact, changes: dict[str, Any], message: str
) -> None:
    _draw(bundle)
    _altered("drawn/0004.png", 0, **changes)
    with pytest.raises(ArtifactError, match=message):
        verify(VerifyRequest(Path("altered.png"), str(bundle.root)))


def test_pictures_that_say_nothing(bundle: FolderArtifact) -> None:
    Path("grid.png").write_bytes(png_bytes(grid(draw_bars(2)[0])))
    with pytest.raises(ArtifactError, match="does not say where it came from"):
        verify(VerifyRequest(Path("grid.png"), str(bundle.root)))
    with pytest.raises(MissingError, match="no such picture"):
        verify(VerifyRequest(Path("none.png"), str(bundle.root)))
