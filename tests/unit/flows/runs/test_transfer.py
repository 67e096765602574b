from pathlib import Path

import pytest

from components.errors import ArtifactError, ConflictError, MissingError, TamperedError
from components.store import LocalStore, Prefix
from flows.runs.lease import Lease, Watch, acquire
from flows.runs.records import CommittedRun, load_run
from flows.runs.stored import Memo, StoredOutput
from flows.runs.transfer import Adoption, adopt, adopt_checkpoints, data_copy, pull
from tests.support.made_runs import a_spec, make_run

OLD, NEW = a_spec("rdm", modules={"components.rdm": "1"}), a_spec("rdm", modules={"components.rdm": "2"})
FILES = {"weights.bin": b"weights", "plots/loss.json": b"[]"}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def other(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "other")


@pytest.fixture
def run(store: LocalStore) -> CommittedRun:
    """A run with one memoised file."""
    out = StoredOutput(store, OLD.prefix, 1, store.root.parent / "scratch", versions={}, mix_versions=False)
    out.memoised("shard.bin", "key", lambda path: path.write_bytes(b"shard") and None)
    run = make_run(store, OLD, {**FILES, "shard.bin": b"shard"}, memos=out.keys)
    Prefix(store, OLD.prefix).put("events/1/000001.jsonl", b"{}\n")
    return run


def damage(store: LocalStore, key: str) -> None:
    path = store.local_path(key)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[::-1])


def wanted(*runs: CommittedRun) -> dict[str, str]:
    return {run.prefix: run.digest for run in runs}


def rekeyed(store: LocalStore, run: CommittedRun, name: str, key: str) -> None:
    """A run.json of somebody else: it names that key for a file, and the bytes lie there."""
    store.put(key, store.get(run.keys[name]))
    record = run.record.model_copy(update={"keys": {**run.keys, name: key}})
    for file in ("run.json", "attempts/1.run.json"):
        Prefix(store, run.prefix).put(file, record.to_json())


def test_adopting_commits_the_same_content_without_copying(store: LocalStore, run: CommittedRun) -> None:
    n_before = len(list(store.list("")))
    adopted = adopt(store, NEW, OLD.fingerprint[:10], "only renamed a variable")
    assert adopted.digest == run.digest
    assert adopted.keys == run.keys
    assert (adopted.record.adopted_from, adopted.record.adopted_because) == (OLD.fingerprint, "only renamed a variable")
    assert adopted.record.fingerprint == NEW.fingerprint
    assert load_run(store, NEW.prefix, verify=True) == adopted
    note = Adoption.parse(store.get(f"{NEW.prefix}/adopted.json"), "adopted.json")
    assert note.differences == ["modules components.rdm: 1 -> 2"]
    assert len(list(store.list(""))) - n_before == 7, "spec, adopted, lease, attempt and its record, manifest, run"
    assert adopt(store, NEW, OLD.fingerprint, "again") == adopted


def test_what_cannot_be_adopted(store: LocalStore, run: CommittedRun) -> None:
    with pytest.raises(ArtifactError, match="made from other inputs"):
        adopt(store, a_spec("rdm", inputs={"encode": "other"}), OLD.fingerprint, "why not")
    with pytest.raises(MissingError, match="no run of rdm"):
        adopt(store, NEW, "zzz", "why not")
    with pytest.raises(ArtifactError, match="reason"):
        adopt(store, NEW, OLD.fingerprint, " ")
    assert load_run(store, NEW.prefix) is None
    make_run(store, NEW, {"weights.bin": b"of its own"})
    with pytest.raises(ArtifactError, match="outputs of its own"):
        adopt(store, NEW, OLD.fingerprint, "why not")


def test_an_unfinished_run_or_one_at_work_is_left_alone(store: LocalStore, run: CommittedRun) -> None:
    claim = acquire(Prefix(store, NEW.prefix), interval_s=3600, watch=Watch())
    assert isinstance(claim, Lease)
    with pytest.raises(ConflictError, match="is being run now"):
        adopt(store, NEW, OLD.fingerprint, "why not")
    claim.release()
    third = a_spec("rdm", modules={"components.rdm": "3"})
    Prefix(store, NEW.prefix).put("spec.json", NEW.to_json())
    with pytest.raises(MissingError, match="not finished"):
        adopt(store, third, NEW.fingerprint, "why not")


@pytest.mark.parametrize(
    "pointer", [b"{", b'{"kept": []}', b'{"kept": [{"step": 3, "key": "k", "sha256": "", "attempt": 1}]}']
)
def test_checkpoints_that_cannot_be_read_are_not_adopted(store: LocalStore, run: CommittedRun, pointer: bytes) -> None:
    """Torn, or of a version that wrote them in another way."""
    store.put(f"{run.prefix}/checkpoints/latest.json", pointer)
    with pytest.raises(ArtifactError, match="no checkpoint that can be read"):
        adopt_checkpoints(store, NEW, OLD.fingerprint, "only renamed a variable")


def test_a_copy_is_complete(store: LocalStore, other: LocalStore, run: CommittedRun) -> None:
    adopted = adopt(store, NEW, OLD.fingerprint, "only renamed a variable")
    assert data_copy(store, other, wanted(adopted, run)) == [NEW.prefix, OLD.prefix]
    assert load_run(other, OLD.prefix, verify=True) == run
    assert load_run(other, NEW.prefix, verify=True) == adopted
    assert other.get(f"{OLD.prefix}/events/1/000001.jsonl") == b"{}\n"
    assert other.get(f"{NEW.prefix}/adopted.json") == store.get(f"{NEW.prefix}/adopted.json")

    def never(path: Path) -> None:
        raise AssertionError("the memoised file was not found")

    out = StoredOutput(other, NEW.prefix, 5, other.root.parent / "scratch", versions={}, mix_versions=False)
    out.memoised("shard.bin", "key", never)
    assert data_copy(store, other, wanted(run)) == []


def test_a_copy_mends_a_damaged_target(store: LocalStore, other: LocalStore, run: CommittedRun) -> None:
    data_copy(store, other, wanted(run))
    damage(other, run.keys["weights.bin"])
    other.delete(run.keys["shard.bin"])
    data_copy(store, other, wanted(run))
    assert load_run(other, OLD.prefix, verify=True) == run


def test_damaged_records_of_a_source_are_not_copied(store: LocalStore, other: LocalStore, run: CommittedRun) -> None:
    entry = f"{run.keys['shard.bin'].rpartition('/')[0]}/entry.json"
    store.put(f"{OLD.prefix}/run.json", b"{")
    store.put(entry, store.get(entry).replace(b"key", b"kez"))
    data_copy(store, other, wanted(run))
    assert other.get(f"{OLD.prefix}/run.json") == run.record.to_json()
    assert other.head(entry) is None


def test_a_damaged_or_absent_source_is_not_copied(store: LocalStore, other: LocalStore, run: CommittedRun) -> None:
    with pytest.raises(MissingError, match="no such artifact"):
        data_copy(store, other, {NEW.prefix: run.digest})
    damage(store, run.keys["weights.bin"])
    with pytest.raises(TamperedError, match=r"weights\.bin"):
        data_copy(store, other, wanted(run))
    assert load_run(other, OLD.prefix) is None


def test_other_outputs_in_the_target_are_not_overwritten(
    store: LocalStore, other: LocalStore, run: CommittedRun
) -> None:
    mine = make_run(other, OLD, {"weights.bin": b"others"})
    with pytest.raises(ArtifactError, match="other outputs"):
        data_copy(store, other, wanted(run))
    assert load_run(other, OLD.prefix, verify=True) == mine


def test_a_run_at_work_in_the_target_is_not_disturbed(store: LocalStore, other: LocalStore, run: CommittedRun) -> None:
    claim = acquire(Prefix(other, OLD.prefix), interval_s=3600, watch=Watch())
    assert isinstance(claim, Lease)
    before = [(info.key, info.etag) for info in other.list("")]
    with pytest.raises(ConflictError, match="is being run now"):
        data_copy(store, other, wanted(run))
    assert [(info.key, info.etag) for info in other.list("")] == before
    claim.release()
    data_copy(store, other, wanted(run))
    assert load_run(other, OLD.prefix, verify=True) == run


def test_pull_fetches_every_file_and_only_what_lacks(store: LocalStore, run: CommittedRun, tmp_path: Path) -> None:
    paths = pull(store, run, tmp_path / "here")
    files = {path.relative_to(tmp_path / "here").as_posix(): path.read_bytes() for path in paths}
    assert files == {**FILES, "shard.bin": b"shard"}
    (tmp_path / "here/weights.bin").write_bytes(b"changed")
    kept = (tmp_path / "here/shard.bin").stat()
    pull(store, run, tmp_path / "here")
    assert (tmp_path / "here/weights.bin").read_bytes() == b"weights"
    assert (tmp_path / "here/shard.bin").stat() == kept
    damage(store, run.keys["weights.bin"])
    with pytest.raises(TamperedError, match=r"weights\.bin"):
        pull(store, run, tmp_path / "there")
    assert not (tmp_path / "there/weights.bin").exists()


@pytest.mark.parametrize(
    "key",
    [
        "decisions/rcg/history.json",
        "runs/rdm/" + "0" * 64 + "/out/1/weights.bin",
        f"{OLD.prefix}/lease.json",
        f"{OLD.prefix}/out/1/plots/loss.json",
        "memo/rdm/" + "0" * 64 + "/entry.json",
        "retrain/current.json",
    ],
)
def test_a_copy_writes_no_key_that_is_not_the_runs_own(
    store: LocalStore, other: LocalStore, run: CommittedRun, key: str
) -> None:
    rekeyed(store, run, "weights.bin", key)
    other.put("decisions/rcg/history.json", b"the champion's")
    before = [(info.key, info.etag) for info in other.list("")]
    with pytest.raises(TamperedError, match="not its own"):
        data_copy(store, other, wanted(run))
    assert [(info.key, info.etag) for info in other.list("")] == before


def test_an_adopted_run_replaces_no_file_of_another(store: LocalStore, other: LocalStore, run: CommittedRun) -> None:
    adopted = adopt(store, NEW, OLD.fingerprint, "only renamed a variable")
    mine = make_run(other, OLD, {"weights.bin": b"of my own"})
    with pytest.raises(ArtifactError, match="would replace a file of another run"):
        data_copy(store, other, wanted(adopted))
    assert load_run(other, OLD.prefix, verify=True) == mine


def test_a_copy_takes_only_the_outputs_that_the_checkout_names(store: LocalStore, other: LocalStore) -> None:
    mine, theirs = make_run(LocalStore(store.root / "mine"), OLD, FILES), make_run(store, OLD, {"weights.bin": b"bad"})
    with pytest.raises(TamperedError, match="other outputs"):
        data_copy(store, other, wanted(mine))
    assert theirs.digest != mine.digest
    assert list(other.list("")) == []


def test_a_whole_run_in_the_target_keeps_its_own_record(
    store: LocalStore, other: LocalStore, run: CommittedRun
) -> None:
    data_copy(store, other, wanted(run))
    record = run.record.model_copy(update={"host": "elsewhere"})
    Prefix(store, run.prefix).put("run.json", record.to_json())
    assert data_copy(store, other, wanted(run)) == []
    assert load_run(other, OLD.prefix) == run


def test_a_memo_of_another_key_is_not_taken(store: LocalStore, other: LocalStore, run: CommittedRun) -> None:
    entry = f"{run.keys['shard.bin'].rpartition('/')[0]}/entry.json"
    memo = Memo.parse(store.get(entry), entry)
    store.put(entry, memo.model_copy(update={"key": "another picture"}).to_json())
    data_copy(store, other, wanted(run))
    assert other.head(entry) is None


def test_a_spec_of_another_run_is_not_taken(store: LocalStore, other: LocalStore, run: CommittedRun) -> None:
    Prefix(store, run.prefix).put("spec.json", NEW.to_json())
    with pytest.raises(TamperedError, match="another run"):
        data_copy(store, other, wanted(run))
