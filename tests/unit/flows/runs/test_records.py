from pathlib import Path

import pytest

from components.errors import ArtifactError, MissingError, TamperedError
from components.store import LocalStore
from flows.identity import artifact
from flows.identity.artifact import digest_of
from flows.runs.records import find_run, full_fingerprint, load_run, restore_record
from tests.support.made_runs import a_spec, make_run

SPEC = a_spec("rdm")
FILES = {"weights.bin": b"weights", "plots/loss.json": b"[]"}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def overwrite(store: LocalStore, key: str, data: bytes) -> None:
    path = store.local_path(key)
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_commit_can_be_loaded(store: LocalStore) -> None:
    assert load_run(store, SPEC.prefix) is None
    made = make_run(store, SPEC, FILES)
    run = load_run(store, SPEC.prefix, verify=True)
    assert run == made
    assert run.digest == digest_of(store.get(f"{SPEC.prefix}/manifest.json"))
    assert (run.stage, run.fingerprint) == ("rdm", SPEC.fingerprint)
    assert store.get(run.keys["weights.bin"]) == b"weights"


def test_the_attempt_is_not_part_of_the_content(store: LocalStore, tmp_path: Path) -> None:
    other = make_run(LocalStore(tmp_path / "other"), SPEC, FILES, attempt=7)
    assert make_run(store, SPEC, FILES).digest == other.digest


def test_the_loser_of_a_commit_adopts_the_winners_files(store: LocalStore) -> None:
    winner = make_run(store, SPEC, FILES)
    loser = make_run(store, SPEC, {**FILES, "weights.bin": b"WEIGHTS"}, attempt=2)
    assert loser.digest == winner.digest
    assert store.get(loser.keys["weights.bin"]) == b"weights"
    assert load_run(store, SPEC.prefix, verify=True) == winner


@pytest.mark.parametrize("loss", ["absent", "of the loser"])
def test_a_winner_that_died_before_its_record_is_found_all_the_same(store: LocalStore, loss: str) -> None:
    winner = make_run(store, SPEC, FILES)
    make_run(store, SPEC, {**FILES, "weights.bin": b"WEIGHTS"}, attempt=2)
    key = f"{SPEC.prefix}/run.json"
    if loss == "absent":
        store.delete(key)
    else:
        store.put(key, store.get(f"{SPEC.prefix}/attempts/2.run.json"))
    run = load_run(store, SPEC.prefix)
    assert run == winner
    restore_record(store, run)
    assert store.get(key) == store.get(f"{SPEC.prefix}/attempts/1.run.json")


def test_a_record_with_a_wrong_byte_is_mended_from_its_copy(store: LocalStore) -> None:
    run = make_run(store, SPEC, FILES)
    key = f"{SPEC.prefix}/run.json"
    whole = store.get(key)
    for place in range(0, len(whole), 9):
        store.put(key, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert load_run(store, SPEC.prefix) == run
    for torn in (b"", whole[:-1], b"[]", b"{}"):
        store.put(key, torn)
        restore_record(store, load_run(store, SPEC.prefix))
        assert store.get(key) == whole


def test_a_record_whose_copy_is_damaged_too_is_named(store: LocalStore) -> None:
    make_run(store, SPEC, FILES)
    for name in ("run.json", "attempts/1.run.json"):
        store.put(f"{SPEC.prefix}/{name}", b"{")
    with pytest.raises(TamperedError, match=r"run\.json.* damaged: run\.json, attempts/1\.run\.json"):
        load_run(store, SPEC.prefix)


def test_a_manifest_that_was_edited_consistently_is_refused(store: LocalStore) -> None:
    make_run(store, SPEC, FILES)
    key = f"{SPEC.prefix}/manifest.json"
    overwrite(store, key, store.get(key).replace(digest_of(b"weights").encode(), digest_of(b"WEIGHTS").encode()))
    with pytest.raises(TamperedError, match="not the one that was committed"):
        load_run(store, SPEC.prefix)


def test_damage_is_named(store: LocalStore) -> None:
    run = make_run(store, SPEC, FILES)
    key = run.keys["weights.bin"]
    overwrite(store, key, b"weightz")
    assert load_run(store, SPEC.prefix) is not None, "sizes agree: only --verify reads the bytes"
    with pytest.raises(TamperedError, match=r"weights\.bin"):
        load_run(store, SPEC.prefix, verify=True)
    overwrite(store, key, b"weight")
    with pytest.raises(TamperedError, match=r"weights\.bin of .* wrong size"):
        load_run(store, SPEC.prefix)
    store.delete(key)
    with pytest.raises(MissingError, match=r"weights\.bin of .* is gone"):
        load_run(store, SPEC.prefix)


def test_memoised_files_are_checked_too(store: LocalStore) -> None:
    key = f"memo/rdm/{'0' * 64}/{digest_of(FILES['weights.bin'])}"
    run = make_run(store, SPEC, FILES, memos={"weights.bin": key})
    assert run.keys["weights.bin"] == key
    store.delete(key)
    with pytest.raises(MissingError, match=r"weights\.bin"):
        load_run(store, SPEC.prefix)


def test_many_files(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_INLINE_FILES", 1)
    run = make_run(store, SPEC, FILES)
    assert load_run(store, SPEC.prefix, verify=True) == run
    assert b"weights" not in store.get(f"{SPEC.prefix}/manifest.json")


def test_a_name_that_leaves_the_folder_is_refused(store: LocalStore) -> None:
    with pytest.raises(ArtifactError, match="unsafe name"):
        make_run(store, SPEC, {"../../escape": b"x"}, memos={"../../escape": "memo/rdm/k/data"})


def test_runs_are_found_by_content(store: LocalStore) -> None:
    run = make_run(store, SPEC, FILES)
    make_run(store, a_spec("rdm", params={"numerics": 2}), {"weights.bin": b"others"})
    assert find_run(store, "rdm", run.digest) == run
    assert find_run(store, "rdm", "0" * 64) is None
    assert find_run(store, "pixels", run.digest) is None


def test_fingerprints_may_be_shortened(store: LocalStore) -> None:
    make_run(store, SPEC, FILES)
    make_run(store, a_spec("rdm", params={"numerics": 2}), FILES)
    assert full_fingerprint(store, "rdm", SPEC.fingerprint[:8]) == SPEC.fingerprint
    with pytest.raises(MissingError, match="no run of rdm"):
        full_fingerprint(store, "rdm", "x")
    with pytest.raises(ArtifactError, match="several"):
        full_fingerprint(store, "rdm", "")
