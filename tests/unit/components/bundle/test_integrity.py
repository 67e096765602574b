"""A bundle is loaded only when every file of it is as it was committed."""

from pathlib import Path

import pytest

from components.bundle.bundle import Bundle
from components.bundle.integrity import bundle_digest
from components.bundle.provenance import check_bundle
from components.errors import TamperedError
from tests.support.bundles import make_bundle
from tests.support.folders import FolderArtifact


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> FolderArtifact:
    return make_bundle(tmp_path_factory.mktemp("rcg"))


def test_an_intact_bundle_is_named_by_its_digest(bundle: FolderArtifact) -> None:
    assert check_bundle(bundle.root) == bundle_digest(bundle.root) == bundle.digest == Bundle.load(bundle.root).digest


def test_a_wrong_byte_in_any_file_is_named(bundle: FolderArtifact) -> None:
    for name in bundle.names():
        path, whole = bundle.path(name), bundle.read_bytes(name)
        for data in {whole + b"\n", whole[:-1] + bytes(byte ^ 1 for byte in whole[-1:]), whole[:-1]} - {whole}:
            path.write_bytes(data)
            with pytest.raises(TamperedError, match=f"{name} is altered"):
                check_bundle(bundle.root)
        path.write_bytes(whole)
    Bundle.load(bundle.root)


@pytest.mark.parametrize("data", [None, b"", b"{", b"[]", b"null", b'{"files": 3}', b"[" * 100_000])
def test_a_bundle_without_its_manifest_is_refused(tmp_path: Path, data: bytes | None) -> None:
    (tmp_path / "rcg.json").write_bytes(b"{}")
    if data is not None:
        (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(TamperedError, match=r"manifest\.json is lost or damaged"):
        Bundle.load(tmp_path)


def test_what_is_lost_or_added_is_named(bundle: FolderArtifact) -> None:
    card = bundle.path("model.py")
    whole = card.read_bytes()
    card.unlink()
    bundle.write_bytes("torch.py", b"")
    with pytest.raises(TamperedError, match=r"model\.py is lost, torch\.py is added"):
        Bundle.load(bundle.root)
    bundle.path("torch.py").unlink()
    card.write_bytes(whole)
