import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import ArtifactError, DivergedError, MissingError, TamperedError
from components.store import LocalStore, Store
from flows.runs.records import load_run
from flows.runs.stored import StoredArtifact, StoredInputs, StoredOutput
from tests.support.made_runs import a_spec, make_run

SPEC = a_spec("encode")


class Remote(LocalStore):
    """A store whose bytes do not lie on this machine."""

    def local_path(self, _key: str) -> None:  # type: ignore[override]
        return None


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def output(store: Store, scratch: Path, *, attempt: int = 1, torch: str = "2.7", mix: bool = False) -> StoredOutput:
    prefix = f"runs/encode/{SPEC.fingerprint}"
    return StoredOutput(store, prefix, attempt, scratch, versions={"torch": torch}, mix_versions=mix)


def writer(data: bytes, calls: list[bytes] | None = None) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(data)
        if calls is not None:
            calls.append(data)

    return make


def never(path: Path) -> None:
    raise AssertionError("it was made already")


def test_what_is_written_is_stored_and_remembered(store: LocalStore, tmp_path: Path) -> None:
    out = output(store, tmp_path / "scratch")
    with out.file("weights/a.bin") as path:
        path.write_bytes(b"abc")
    out.write_bytes("b.bin", b"")
    out.write_json("c.json", {"b": 1, "a": [0.5, "é"]})
    assert out.files["weights/a.bin"].size == 3
    assert out.files["weights/a.bin"].sha256 == hashlib.sha256(b"abc").hexdigest()
    assert store.get(out.keys["weights/a.bin"]) == b"abc"
    assert out.keys["b.bin"] == f"runs/encode/{SPEC.fingerprint}/out/1/b.bin"
    assert store.get(out.keys["c.json"]).decode() == '{\n "a": [\n  0.5,\n  "é"\n ],\n "b": 1\n}\n'
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_file_that_fails_is_not_stored(store: LocalStore, tmp_path: Path) -> None:
    out = output(store, tmp_path / "scratch")
    with contextlib.suppress(ZeroDivisionError), out.file("a") as path:
        path.write_bytes(b"half")
        _ = 1 / 0
    with pytest.raises(ArtifactError, match="was to write a"), out.file("a"):
        pass
    with pytest.raises(DivergedError, match=r"loss\.json"):
        out.write_json("plots/loss.json", [float("nan")])
    assert out.files == {}
    assert list(store.list("runs")) == []
    assert list((tmp_path / "scratch").iterdir()) == []


def test_names_are_unique_and_safe(store: LocalStore, tmp_path: Path) -> None:
    out = output(store, tmp_path / "scratch")
    out.write_bytes("a", b"1")
    with pytest.raises(ArtifactError, match="writes a twice"):
        out.write_bytes("a", b"2")
    assert store.get(out.keys["a"]) == b"1"
    for name in ("../a", "/a", ""):
        with pytest.raises(ArtifactError, match="unsafe name"):
            out.write_bytes(name, b"x")
        with pytest.raises(ArtifactError, match="unsafe name"), out.file(name):
            pass


def test_a_memoised_file_is_made_once(store: LocalStore, tmp_path: Path) -> None:
    calls: list[bytes] = []
    first = output(store, tmp_path / "scratch")
    entry = first.memoised("shards/0.arrow", "chunk 0, encoder e", writer(b"shard", calls))
    second = output(store, tmp_path / "scratch", attempt=2)
    assert second.memoised("shards/renamed.arrow", "chunk 0, encoder e", never) == entry
    assert second.memoised("shards/1.arrow", "chunk 1, encoder e", writer(b"other", calls)).size == 5
    assert calls == [b"shard", b"other"]
    assert store.get(second.keys["shards/renamed.arrow"]) == b"shard"
    folder = hashlib.sha256(b"chunk 0, encoder e").hexdigest()
    assert second.keys["shards/renamed.arrow"].startswith(f"memo/encode/{folder}/")


def test_of_two_makers_one_wins(store: LocalStore, tmp_path: Path) -> None:
    first, second = output(store, tmp_path / "a"), output(store, tmp_path / "b")

    def make_late(path: Path) -> None:
        second.memoised("x", "key", writer(b"second"))
        path.write_bytes(b"first")

    assert first.memoised("x", "key", make_late) == second.files["x"]
    assert store.get(first.keys["x"]) == b"second"


@pytest.mark.parametrize("torn", [False, True])
def test_a_memoised_file_that_was_lost_is_made_again(store: LocalStore, tmp_path: Path, torn: bool) -> None:
    first = output(store, tmp_path / "scratch")
    first.memoised("x", "key", writer(b"bytes"))
    store.delete(first.keys["x"])
    if torn:
        store.put(first.keys["x"], b"by")
    for data in (b"bytes", b"other"):
        second = output(store, tmp_path / "scratch")
        second.memoised("x", "key", writer(data))
        assert store.get(second.keys["x"]) == data
        store.delete(second.keys["x"])


@pytest.mark.parametrize("kind", [LocalStore, Remote])
@pytest.mark.parametrize("part", ["data", "entry"])
def test_a_memoised_file_is_never_believed_with_a_wrong_byte(tmp_path: Path, kind: type[LocalStore], part: str) -> None:
    store = kind(tmp_path / "store")
    first = output(store, tmp_path / "scratch")
    first.memoised("x", "key", writer(b"bytes"))
    data = first.keys["x"]
    key = data if part == "data" else f"{data.rpartition('/')[0]}/entry.json"
    whole = store.get(key)
    for place in range(0, len(whole), 1 + len(whole) // 40):
        store.put(key, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        again = output(store, tmp_path / "scratch", attempt=2 + place)
        again.memoised("x", "key", writer(b"bytes"))
        assert again.files == first.files
        assert again.path("x").read_bytes() == b"bytes"
        assert store.get(key) == whole


def test_parts_of_other_library_versions_are_not_mixed_in_silently(store: LocalStore, tmp_path: Path) -> None:
    output(store, tmp_path / "scratch").memoised("x", "key", writer(b"bytes"))
    with pytest.raises(ArtifactError, match=r"torch 2\.7 there, 2\.8 here"):
        output(store, tmp_path / "scratch", torch="2.8").memoised("x", "key", never)
    output(store, tmp_path / "scratch", torch="2.8", mix=True).memoised("x", "key", never)


@pytest.mark.parametrize("kind", [LocalStore, Remote])
def test_inputs_are_checked_at_the_first_read(kind: type[LocalStore], tmp_path: Path) -> None:
    store = kind(tmp_path / "store")
    files = {"index.json": b'{"n": 3}', "deep/a.bin": b"abc", "bad.json": b"{"}
    run = make_run(store, SPEC, files)
    parent = StoredArtifact(store, run, tmp_path / "scratch")
    assert parent.digest == run.digest
    assert parent.read_json("index.json") == {"n": 3}
    assert parent.path("deep/a.bin").read_bytes() == b"abc"
    with pytest.raises(ArtifactError, match=r"bad\.json of encode is not valid JSON"):
        parent.read_json("bad.json")
    with pytest.raises(MissingError, match="no file nothing"):
        parent.path("nothing")
    path = store.root / run.keys["deep/a.bin"]
    path.chmod(0o644)
    path.write_bytes(b"abd")
    assert load_run(store, run.prefix) is not None
    with pytest.raises(TamperedError, match=r"deep/a\.bin"):
        StoredArtifact(store, run, tmp_path / "scratch 2").path("deep/a.bin")


@pytest.mark.parametrize("kind", [LocalStore, Remote])
def test_what_is_released_is_fetched_and_checked_again_or_stays_in_the_store(
    kind: type[LocalStore], tmp_path: Path
) -> None:
    store = kind(tmp_path / "store")
    run = make_run(store, SPEC, {"a": b"abc"})
    parent = StoredArtifact(store, run, tmp_path / "scratch")
    path = parent.path("a")
    for _ in range(2):
        parent.release("a")
    assert path.exists() == (kind is LocalStore)
    assert store.get(run.keys["a"]) == parent.path("a").read_bytes() == b"abc"


def test_only_declared_parents_can_be_read(store: LocalStore, tmp_path: Path) -> None:
    run = make_run(store, SPEC, {"a": b""})
    inputs = StoredInputs({"encode": StoredArtifact(store, run, tmp_path)}, "demo", "lock: 1\n", tmp_path / "scratch")
    assert inputs["encode"].digest == run.digest
    assert inputs.collection_lock is not None
    assert inputs.collection_lock.read_text() == "lock: 1\n"
    with pytest.raises(ArtifactError, match="does not declare rdm"):
        inputs["rdm"]
