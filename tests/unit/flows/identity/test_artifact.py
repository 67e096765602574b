import hashlib
import json
from pathlib import Path

import pytest

from components.errors import ArtifactError, DivergedError, TamperedError
from flows.identity import artifact
from flows.identity.artifact import (
    FileEntry,
    Manifest,
    canonical_json,
    digest_of,
    file_entry,
    pack_manifest,
    read_head,
    readable_json,
    unpack_manifest,
)

WEIGHTS = b"not really weights"
MANIFEST = Manifest(
    schema_version=1,
    stage="rdm",
    files={"weights.safetensors": FileEntry(size=len(WEIGHTS), sha256=hashlib.sha256(WEIGHTS).hexdigest())},
)


def no_listing(name: str) -> bytes:
    raise AssertionError(name)


def test_the_content_digest_is_that_of_canonical_json() -> None:
    data, listing = pack_manifest(MANIFEST)
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    assert listing is None
    assert data == (
        b'{"files":{"weights.safetensors":{"sha256":"%s","size":18}},"schema_version":1,"stage":"rdm"}'
        % sha256.encode()
    )
    assert digest_of(data) == hashlib.sha256(data).hexdigest()
    assert unpack_manifest(data, "rdm", "manifest.json", no_listing) == MANIFEST


def test_the_order_of_files_does_not_matter() -> None:
    one, two = FileEntry(size=1, sha256="a" * 64), FileEntry(size=2, sha256="b" * 64)
    forth = Manifest(schema_version=1, stage="rdm", files={"x": one, "y": two})
    back = Manifest(schema_version=1, stage="rdm", files={"y": two, "x": one})
    assert pack_manifest(forth) == pack_manifest(back)


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_have_to_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"x": value})
    with pytest.raises(DivergedError, match=r"loss\.json"):
        readable_json([value], "plots/loss.json")


def test_many_files_are_listed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_INLINE_FILES", 3)
    files = {f"images/{n}": FileEntry(size=n, sha256=f"{n:064x}") for n in range(4)}
    manifest = Manifest(schema_version=1, stage="sample", files=files)
    data, listing = pack_manifest(manifest)
    assert listing is not None
    assert len(listing.splitlines()) == 4
    assert json.loads(listing.splitlines()[2]) == {"name": "images/2", "size": 2, "sha256": f"{2:064x}"}
    named = {artifact.listing_name(digest_of(listing)): listing}
    assert unpack_manifest(data, "sample", "m", named.__getitem__) == manifest
    with pytest.raises(TamperedError, match="listing of m"):
        unpack_manifest(data, "sample", "m", lambda _: listing.replace(b"images/2", b"images/9"))
    changed = files | {"images/2": FileEntry(size=2, sha256="f" * 64)}
    assert pack_manifest(Manifest(schema_version=1, stage="sample", files=changed))[0] != data


def edited(**changes: object) -> bytes:
    return canonical_json(json.loads(pack_manifest(MANIFEST)[0]) | changes)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (pack_manifest(MANIFEST)[0] + b"\n", TamperedError, "edited by hand"),
        (json.dumps(json.loads(pack_manifest(MANIFEST)[0]), indent=1).encode(), TamperedError, "edited by hand"),
        (pack_manifest(MANIFEST)[0][:-20], ArtifactError, "is not valid JSON"),
        (b"\xff\xfe", ArtifactError, "is not valid JSON"),
        (b"[]", ArtifactError, "no schema_version"),
        (b"null", ArtifactError, "no schema_version"),
        (edited(schema_version="1"), ArtifactError, "no schema_version"),
        (edited(schema_version=2), ArtifactError, "newer version"),
        (edited(files={"x": {"size": "much"}}), ArtifactError, "not as it was written"),
        (edited(more=1), ArtifactError, "not as it was written"),
        (edited(stage="pixels"), ArtifactError, "another stage"),
    ],
)
def test_what_no_commit_wrote_is_refused_by_name(data: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        read_head(data, "rdm", "artifacts/rdm/manifest.json")
    assert "artifacts/rdm/manifest.json" in str(caught.value)


def test_file_entry(tmp_path: Path) -> None:
    (path := tmp_path / "file").write_bytes(WEIGHTS)
    assert file_entry(path) == MANIFEST.files["weights.safetensors"]
