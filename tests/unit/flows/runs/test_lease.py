import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from components.errors import ConflictError, StoreError, SupersededError
from components.store import LocalStore, Prefix, Store
from flows.runs.lease import FencedStore, Lease, LeaseRecord, Watch, acquire, attempts, check_fence, read_lease
from flows.runs.process import Process


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def run(tmp_path: Path) -> Store:
    return Prefix(LocalStore(tmp_path), "runs/rdm/f")


def take(run: Store, *, interval_s: float = 3600, watch: Watch | None = None) -> Lease:
    claim = acquire(run, interval_s=interval_s, watch=watch or Watch())
    assert isinstance(claim, Lease)
    return claim


def record(run: Store) -> LeaseRecord:
    found = read_lease(run)
    assert found is not None
    return found[0]


def pretend(run: Store, **changes: object) -> None:
    """Rewrite the lease as another holder's."""
    changed = record(run).model_copy(update=changes)
    run.put("lease.json", changed.to_json())


def elsewhere(**changes: object) -> Process:
    return Process.current().model_copy(update={"host": "another", **changes})


def dead_process() -> Process:
    """A process of this machine that has ended."""
    code = "from flows.runs.process import Process; print(Process.current().model_dump_json())"
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return Process.model_validate_json(done.stdout)


def test_a_lease_is_held_once(run: Store) -> None:
    with take(run) as lease:
        assert lease.attempt == 1
        assert attempts(run) == [1]
        held = acquire(run, interval_s=1, watch=Watch())
        assert isinstance(held, LeaseRecord)
        assert (held.attempt, held.holder) == (1, Process.current())
        lease.check()
        check_fence(run, 1)
    assert record(run).released
    with take(run) as lease:
        assert lease.attempt == 2
    assert attempts(run) == [1, 2]


def test_this_process_lives_and_others_do_not() -> None:
    me = Process.current()
    assert not me.is_gone()
    assert dead_process().is_gone()
    assert me.model_copy(update={"started": "1"}).is_gone(), "the pid was given to a new process"
    assert not dead_process().model_copy(update={"host": "another"}).is_gone(), "nobody can tell from here"
    assert not dead_process().model_copy(update={"boot": "of another container"}).is_gone()


def test_a_zombie_is_gone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    stat = Path(f"/proc/{pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    started = stat.read_text().rpartition(")")[2].split()[19]
    zombie = Process.current().model_copy(update={"pid": pid, "started": started})
    assert zombie.is_gone()
    os.waitpid(pid, 0)


def test_a_dead_holder_is_taken_over_at_once(run: Store) -> None:
    take(run)
    pretend(run, holder=dead_process())
    with take(run) as lease:
        assert lease.attempt == 2


def test_a_holder_whose_failure_is_on_record_is_taken_over_at_once(run: Store) -> None:
    """It wrote why it ended and then died, or its store failed, before it could release the lease."""
    failed = take(run)
    run.put("attempts/1.failure.json", b"{}")
    with take(run) as lease:
        assert lease.attempt == 2
        failed.release()
        lease.check()


def test_whoever_followed_a_failed_attempt_may_end_with_it(run: Store) -> None:
    class SameEndError(Exception): ...

    def end(attempt: int) -> None:
        assert attempt == 1
        raise SameEndError

    take(run).release()
    run.put("attempts/1.failure.json", b"{}")
    with pytest.raises(SameEndError):
        acquire(run, interval_s=3600, watch=Watch(), on_failed=end)
    assert attempts(run) == [1], "no attempt was begun"


def test_a_number_with_anything_on_record_is_used(run: Store) -> None:
    run.put("attempts/3.failure.json", b"{}")
    with take(run) as lease:
        assert lease.attempt == 4


def test_a_holder_elsewhere_is_dead_after_three_missed_beats(run: Store) -> None:
    take(run)
    pretend(run, holder=elsewhere(), interval_s=10, heartbeat=0.0)
    clock = Clock()
    watch = Watch(clock)
    for clock.now in (0.0, 10.0, 30.0):
        assert isinstance(acquire(run, interval_s=1, watch=watch), LeaseRecord)
    pretend(run, beat=7)
    for clock.now in (31.0, 61.0):
        assert isinstance(acquire(run, interval_s=1, watch=watch), LeaseRecord), "it gave a sign of life"
    clock.now = 61.1
    with take(run, watch=watch) as lease:
        assert lease.attempt == 2


def test_clocks_of_two_machines_are_not_compared(run: Store) -> None:
    take(run)
    pretend(run, holder=elsewhere(), interval_s=1, heartbeat=time.time() - 10**6)
    assert isinstance(acquire(run, interval_s=1, watch=Watch()), LeaseRecord)


def test_the_holder_beats(run: Store) -> None:
    with take(run, interval_s=0.02):
        first = record(run).beat
        deadline = time.monotonic() + 10
        while record(run).beat < first + 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_whoever_lost_the_lease_stops_at_the_next_write(run: Store, tmp_path: Path) -> None:
    old = take(run)
    fenced = FencedStore(run, old.check)
    fenced.put("out/1/a", b"a")
    pretend(run, holder=dead_process())
    new = take(run)
    (file := tmp_path / "file").write_bytes(b"b")
    before = [info.key for info in run.list("")]
    for write in (
        lambda: fenced.put("out/1/b", b"b"),
        lambda: fenced.upload("out/1/b", file),
        lambda: fenced.delete("out/1/a"),
        old.check,
        lambda: check_fence(run, 1),
    ):
        with pytest.raises(SupersededError, match="attempt 1 lost its lease"):
            write()
    assert [info.key for info in run.list("")] == before
    assert fenced.get("out/1/a") == b"a"
    held = record(run)
    old.release()
    assert record(run) == held, "the loser leaves the winner's lease alone"
    new.check()
    new.release()


def test_the_heartbeat_notices_the_loss(run: Store) -> None:
    old = take(run, interval_s=0.02)
    run.put("lease.json", record(run).model_copy(update={"attempt": 9}).to_json())
    deadline = time.monotonic() + 10
    while not old._lost:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert record(run).attempt == 9
    old.release()


def test_a_lost_lease_file_does_not_bring_back_a_number(run: Store) -> None:
    take(run)
    run.delete("lease.json")
    with pytest.raises(SupersededError):
        check_fence(run, 1)
    with take(run) as lease:
        assert lease.attempt == 2


class AnswerLost:
    """A store whose conditional writes work, but say that they did not: a retried request sees its own first try."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        self._store.put(key, data, if_absent=if_absent, if_match=if_match)
        raise ConflictError(key)


def test_a_write_whose_answer_was_lost_still_counts(run: Store) -> None:
    class OnlyLease(AnswerLost):
        def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
            if key == "lease.json":
                return super().put(key, data, if_absent=if_absent, if_match=if_match)
            return self._store.put(key, data, if_absent=if_absent, if_match=if_match)

    lease = take(OnlyLease(run))  # type: ignore[arg-type]
    assert lease.attempt == 1
    lease.check()
    lease.release()
    assert record(run).released
    assert attempts(run) == [1]


def test_a_beat_that_took_effect_unheard_does_not_hinder_the_release(run: Store) -> None:
    class Unheard(AnswerLost):
        def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
            etag = self._store.put(key, data, if_absent=if_absent, if_match=if_match)
            if b'"released":false' in data and b'"beat":0' not in data:
                raise StoreError("no answer")
            return etag

    lease = take(Unheard(run), interval_s=0.02)  # type: ignore[arg-type]
    deadline = time.monotonic() + 10
    while record(run).beat < 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lease.release()
    assert record(run).released


def test_a_lease_whose_attempt_cannot_be_recorded_is_given_back(run: Store) -> None:
    class Full(AnswerLost):
        def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
            if key.startswith("attempts/"):
                raise StoreError("full")
            return self._store.put(key, data, if_absent=if_absent, if_match=if_match)

    with pytest.raises(StoreError, match="full"):
        acquire(Full(run), interval_s=3600, watch=Watch())  # type: ignore[arg-type]
    assert record(run).released
    with take(run) as lease:
        assert lease.attempt == 2


def _take_and_keep(folder: Path, start: float) -> int | None:
    run = Prefix(LocalStore(folder), "runs/rdm/f")
    time.sleep(max(0.0, start - time.time()))
    claim = acquire(run, interval_s=3600, watch=Watch())
    if isinstance(claim, LeaseRecord):
        return None
    time.sleep(0.3)
    return claim.attempt


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    run = Prefix(LocalStore(tmp_path), "runs/rdm/f")
    take(run)
    pretend(run, holder=dead_process())
    with multiprocessing.get_context("spawn").Pool(4) as pool:  # a fork would take over the locks of other threads
        claims = pool.starmap(_take_and_keep, [(tmp_path, time.time() + 2)] * 4, chunksize=1)
    assert sorted(claims, key=str) == [2, None, None, None]
    assert attempts(run) == [1, 2]


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b"\xff"])
def test_a_torn_lease_is_mended_by_its_holder(run: Store, torn: bytes) -> None:
    with take(run, interval_s=0.05) as lease:
        run.put("lease.json", torn)
        lease.check()
        held = acquire(run, interval_s=1, watch=Watch())
        assert isinstance(held, LeaseRecord)
        assert held.holder == Process.current()
        until = time.monotonic() + 10
        while run.get("lease.json") == torn and time.monotonic() < until:
            time.sleep(0.01)
    assert record(run).released


def test_a_torn_lease_of_a_dead_holder_is_taken_over(run: Store) -> None:
    with take(run):
        dead = record(run).model_copy(update={"holder": dead_process()})
    run.put("attempts/1.json", dead.to_json())
    run.put("lease.json", b"{")
    with take(run) as lease:
        assert lease.attempt == 2


def test_a_torn_lease_of_an_unknown_holder_is_watched(run: Store) -> None:
    run.put("lease.json", b"{")
    run.put("attempts/4.json", b"{")
    clock = Clock()
    watch = Watch(clock)
    assert isinstance(acquire(run, interval_s=1, watch=watch), LeaseRecord)
    clock.now = 1e6
    with take(run, watch=watch) as lease:
        assert lease.attempt == 5


def test_two_holders_of_one_number_are_told_apart(run: Store) -> None:
    with take(run, interval_s=0.05) as lease:
        pretend(run, holder=elsewhere(), beat=9)
        time.sleep(0.5)
        with pytest.raises(SupersededError):
            lease.check()


@pytest.mark.parametrize("interval_s", ["1e9", "NaN", "Infinity", "-1"])
def test_an_impossible_interval_is_damage_and_not_waited_for(run: Store, interval_s: str) -> None:
    with take(run):
        pass
    run.delete("attempts/1.json")
    run.put("lease.json", run.get("lease.json").replace(b"3600.0", interval_s.encode()).replace(b"true", b"false"))
    assert record(run).interval_s < 3600
