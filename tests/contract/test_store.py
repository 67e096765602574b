"""What every store promises: a folder, a part of one, a real S3 server, and moto. A new store: one line in STORES."""

import multiprocessing
import os
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import ArtifactError, ConflictError, MissingError
from components.store import LocalStore, Prefix, Store, open_store
from components.store.s3 import S3Store
from tests.support.s3_rig import aws_environment, moto_server, s3_server

Make = Callable[[Path, str], Store]

STORES: dict[str, tuple[str | None, Make]] = {
    "file": (None, lambda folder, _: LocalStore(folder / "a store")),
    "prefix": (None, lambda folder, _: Prefix(LocalStore(folder), "some/prefix")),
    "moto": ("moto_endpoint", lambda _, name: S3Store(f"s3://rcg/{name}", patience_s=20)),
    "s3": ("s3_endpoint", lambda _, name: S3Store(f"s3://rcg/{name}/a folder", patience_s=20)),
    "s3-prefix": ("s3_endpoint", lambda _, name: Prefix(S3Store("s3://rcg", patience_s=20), name)),
}
"""Name -> (fixture with the endpoint that it needs, how to make it below a fresh folder or name)."""

N_PROCESSES, N_ROUNDS = 4, 15


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server.endpoint


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    with moto_server("rcg") as endpoint:
        yield endpoint


def _params() -> list[object]:
    """Every store; those that need a server are marked so."""
    return [
        pytest.param(name, marks=[] if endpoint is None else pytest.mark.processes, id=name)
        for name, (endpoint, _) in STORES.items()
    ]


@pytest.fixture(params=_params())
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    endpoint, make = STORES[request.param]
    if endpoint is not None:
        for name, value in aws_environment(request.getfixturevalue(endpoint)).items():
            monkeypatch.setenv(name, value)
    return make(tmp_path, uuid.uuid4().hex)


@pytest.fixture
def racing(request: pytest.FixtureRequest, store: Store) -> Store:
    """A store whose server checks a condition and writes in one step."""
    if request.node.callspec.params["store"] == "moto":
        pytest.skip("moto checks a condition and writes in two steps: several racers may win")
    return store


def keys(store: Store, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def in_processes(body: Callable[[Store, int], None], store: Store, n: int = N_PROCESSES) -> None:
    """Run body(store, 0) … body(store, n - 1) at the same time, each in its own process.

    They are forked from a server that has not used a store: the threads of S3's client do not survive a fork.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    processes = [context.Process(target=_in_process, args=(dict(os.environ), body, store, i)) for i in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * n


def _in_process(environment: dict[str, str], body: Callable[[Store, int], None], store: Store, number: int) -> None:
    os.environ.update(environment)
    body(store, number)


def test_bytes_come_back(store: Store) -> None:
    data = bytes(range(256)) * 5
    etag = store.put("a/b/c.bin", data)
    assert store.get("a/b/c.bin") == data
    info = store.head("a/b/c.bin")
    assert info is not None
    assert (info.key, info.size, info.etag) == ("a/b/c.bin", len(data), etag)
    assert list(store.list("")) == [info]


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (0, 3), (2, 5), (7, None), (4, 4), (8, 100), (10, None), (99, 120)]
)
def test_a_range_is_a_slice(store: Store, start: int, stop: int | None) -> None:
    data = b"0123456789"
    store.put("digits", data)
    assert store.get("digits", start=start, stop=stop) == data[start:stop]


def test_empty_objects_exist(store: Store) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert keys(store) == ["empty"]


def test_absent_keys(store: Store, tmp_path: Path) -> None:
    store.put("folder/object", b"x")
    for key in ("nothing", "folder", "folder/object/below"):
        assert store.head(key) is None
        with pytest.raises(MissingError):
            store.get(key)
        with pytest.raises(MissingError):
            store.download(key, tmp_path / "download")
        store.delete(key)
    assert not (tmp_path / "download").exists()
    assert keys(store) == ["folder/object"]


def test_a_put_replaces_and_changes_the_etag(store: Store) -> None:
    first = store.put("key", b"one")
    second = store.put("key", b"two")
    assert first != second
    assert store.get("key") == b"two"


def test_if_absent(store: Store) -> None:
    store.put("key", b"one", if_absent=True)
    with pytest.raises(ConflictError):
        store.put("key", b"two", if_absent=True)
    assert store.get("key") == b"one"
    store.delete("key")
    store.put("key", b"three", if_absent=True)
    assert store.get("key") == b"three"


def test_if_match(store: Store) -> None:
    with pytest.raises(ConflictError):
        store.put("key", b"one", if_match="no-such-etag")
    assert keys(store) == []
    first = store.put("key", b"one")
    second = store.put("key", b"two", if_match=first)
    with pytest.raises(ConflictError):
        store.put("key", b"three", if_match=first)
    assert store.get("key") == b"two"
    assert second != first
    store.put("key", b"three", if_match=second)


def _create(store: Store, number: int, folder: Path) -> None:
    for turn in range(N_ROUNDS):
        try:
            store.put(f"race/{turn}", f"{number}".encode() * 1000, if_absent=True)
        except ConflictError:
            continue
        (folder / f"won-{turn}-{number}").touch()


def test_one_of_many_processes_creates(racing: Store, tmp_path: Path) -> None:
    in_processes(partial(_create, folder=tmp_path), racing)
    for turn in range(N_ROUNDS):
        winners = [path.name.split("-")[2] for path in tmp_path.glob(f"won-{turn}-*")]
        assert len(winners) == 1
        assert racing.get(f"race/{turn}") == winners[0].encode() * 1000


def _count(store: Store, _number: int = 0) -> None:
    """Raise the counter N_ROUNDS times by compare-and-swap."""
    done = 0
    while done < N_ROUNDS:
        info = store.head("counter")
        assert info is not None
        value = int(store.get("counter"))
        try:
            store.put("counter", str(value + 1).encode(), if_match=info.etag)
        except ConflictError:
            continue
        done += 1


def test_compare_and_swap_between_processes_loses_no_update(racing: Store) -> None:
    racing.put("counter", b"0")
    in_processes(_count, racing)
    assert int(racing.get("counter")) == N_PROCESSES * N_ROUNDS


def test_compare_and_swap_between_threads_loses_no_update(racing: Store) -> None:
    racing.put("counter", b"0")
    threads = [threading.Thread(target=_count, args=(racing,)) for _ in range(N_PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int(racing.get("counter")) == N_PROCESSES * N_ROUNDS


CONTENTS = [bytes([number]) * 300_000 for number in range(3)]


def _write_or_read(store: Store, number: int) -> None:
    for turn in range(N_ROUNDS):
        if number % 2:
            store.put("key", CONTENTS[turn % 3])
        else:
            assert store.get("key") in CONTENTS


def test_readers_never_see_half_an_object(store: Store) -> None:
    store.put("key", CONTENTS[0])
    in_processes(_write_or_read, store)


def test_listing_is_by_folder_and_in_key_order(store: Store) -> None:
    names = ["a-b", "a.b", "a/b", "a/b.c", "a/bc", "a0", "ab/c", "é/x", "z/1", "z/10", "z/2"]
    for name in reversed(names):
        store.put(name, name.encode())
    assert keys(store) == sorted(names)
    assert keys(store, "a") == keys(store, "a/") == ["a/b", "a/b.c", "a/bc"]
    assert keys(store, "z") == ["z/1", "z/10", "z/2"]
    assert keys(store, "a/b.c") == keys(store, "nowhere") == []


part = st.text(st.sampled_from("ab-._0 é"), min_size=1, max_size=4).filter(lambda text: text not in (".", ".."))


@settings(database=None, max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(st.tuples(st.just("k"), part, part).map("/".join), max_size=12))
def test_listing_equals_sorting(store: Store, names: set[str]) -> None:
    for info in list(store.list("")):
        store.delete(info.key)
    for name in names:
        store.put(name, b"")
    assert keys(store) == sorted(names)


def test_files_travel_whole(store: Store, tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (source := tmp_path / "source").write_bytes(data)
    store.upload("big/file", source)
    assert store.get("big/file") == data
    target = tmp_path / "new" / "folder" / "target"
    store.download("big/file", target)
    assert target.read_bytes() == data
    source.write_bytes(b"changed later")
    target.write_bytes(b"changed later")
    assert store.get("big/file") == data
    path = store.local_path("big/file")
    assert path is None or path.read_bytes() == data
    with pytest.raises(MissingError):
        store.upload("other", tmp_path / "no such file")


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a/.", "a\\b", "a\nb", "a\0b"]
)
def test_keys_that_could_leave_the_store_are_refused(store: Store, key: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    (source := tmp_path / "source").write_bytes(b"x")
    for call in (
        lambda: store.put(key, b"x"),
        lambda: store.get(key),
        lambda: store.head(key),
        lambda: store.delete(key),
        lambda: store.upload(key, source),
        lambda: store.download(key, tmp_path / "target"),
        lambda: store.local_path(key),
    ):
        with pytest.raises(ArtifactError, match="unsafe name"):
            call()
    source.unlink()
    assert sorted(tmp_path.rglob("*")) == before


def _use(store: Store, number: int) -> None:
    assert store.get("key", start=1, stop=3) == b"al"
    assert store.head("key") == next(iter(store.list("")))
    store.delete(f"of {number}")
    store.put(f"of {number}", b"x", if_absent=True)


def test_it_travels_to_other_processes(store: Store) -> None:
    store.put("key", b"value")
    again = pickle.loads(pickle.dumps(store))
    assert (again.uri, again.get("key")) == (store.uri, b"value")
    in_processes(_use, store, 2)
    assert keys(store) == ["key", "of 0", "of 1"]


def test_it_opens_again_by_its_uri(store: Store) -> None:
    store.put("key", b"value")
    again = open_store(store.uri)
    assert again.get("key") == b"value"
    assert again.uri == store.uri
