"""A bundle is loaded only when every file of it is as it was committed."""

from pathlib import Path

import pytest

from components.bundle.bundle import Bundle
from components.bundle.integrity import bundle_digest, find_damage, read_files
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
    """Damaged all at once: each file is compared by itself."""
    whole = {name: bundle.read_bytes(name) for name in bundle.names()}
    filled = {name: data for name, data in whole.items() if data}
    longer, shorter = ({name: data + b"\n" for name, data in whole.items()}, {n: d[:-1] for n, d in filled.items()})
    flipped = {name: data[:-1] + bytes([data[-1] ^ 1]) for name, data in filled.items()}
    for damaged in (longer, flipped, shorter):
        for name, data in damaged.items():
            bundle.write_bytes(name, data)
        assert find_damage(bundle.root, read_files(bundle.root)) == [f"{name} is altered" for name in sorted(damaged)]
        for name, data in whole.items():
            bundle.write_bytes(name, data)
    bundle.write_bytes("rcg.json", flipped["rcg.json"])
    with pytest.raises(TamperedError, match=r"rcg\.json is altered"):
        check_bundle(bundle.root)
    bundle.write_bytes("rcg.json", whole["rcg.json"])
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
