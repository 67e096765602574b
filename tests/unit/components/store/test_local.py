import contextlib
import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import ConfigError, MissingError, StoreError, StoreRefusedError
from components.process import machine
from components.store import LocalStore, Prefix, open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond 4 KiB. Not a fixture: pytest's own report may go to a larger file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def temporaries(store: LocalStore) -> list[Path]:
    return list((store.root / ".rcg-store" / "tmp").iterdir())


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///data/my%20store", "/data/my store"),
        ("file://localhost/data", "/data"),
        ("/data/100%25", "/data/100%25"),
    ],
)
def test_uris(uri: str, path: str) -> None:
    store = open_store(uri)
    assert isinstance(store, LocalStore)
    assert store.root == Path(path)
    assert open_store(store.uri).local_path  # its own URI opens it again
    assert LocalStore(path).uri == store.uri


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store(".rcg/store").uri == (tmp_path / ".rcg/store").as_uri()


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "gs://bucket",
        "s3://",
        "s3:///prefix",
        "s3://Bucket",
        "s3://bucket/../x",
        "file://relative/path",
        "file://",
        "s3:/bucket",
        "s3:bucket",
        "S3:/bucket",
        "file:/data",
    ],
)
def test_addresses_without_a_store(uri: str) -> None:
    with pytest.raises(ConfigError):
        open_store(uri)


def test_opening_creates_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    assert store.head("key") is None
    assert list(store.list("")) == []
    assert not (tmp_path / "store").exists()


def test_a_prefix_cannot_be_left(store: LocalStore) -> None:
    store.put("secret", b"x")
    assert list(Prefix(store, "inside").list("")) == []
    assert Prefix(store, "inside").head("secret") is None


def test_an_etag_never_comes_back(store: LocalStore) -> None:
    etags = [store.put("key", data) for data in (b"a", b"b") * 20]
    assert len(set(etags)) == 40


def test_objects_cannot_be_written_in_place_by_accident(store: LocalStore) -> None:
    store.put("key", b"x")
    assert stat.S_IMODE(store.local_path("key").stat().st_mode) & 0o222 == 0


def test_links_and_folders_are_not_objects(store: LocalStore, tmp_path: Path) -> None:
    store.put("folder/object", b"x")
    (tmp_path / "outside").write_text("secret")
    (store.root / "link").symlink_to(tmp_path / "outside")
    assert [info.key for info in store.list("")] == ["folder/object"]
    assert store.head("link") is None
    assert store.head("folder") is None
    with pytest.raises(MissingError):
        store.local_path("link")
    with pytest.raises(StoreError):
        store.put("folder", b"x")
    assert temporaries(store) == []


def test_a_write_that_is_cut_off_shows_nothing(store: LocalStore) -> None:
    store.put("key", b"old")
    with small_files(), pytest.raises(StoreError, match="cannot write key") as caught:
        store.put("key", b"x" * 10_000)
    assert "ulimit -f" in str(caught.value)
    assert caught.value.exit_code == 3
    assert store.get("key") == b"old"
    assert temporaries(store) == []


def test_an_upload_that_is_cut_off_shows_nothing(store: LocalStore, tmp_path: Path) -> None:
    (source := tmp_path / "source").write_bytes(b"x" * 10_000)
    with small_files(), pytest.raises(StoreError):
        store.upload("key", source)
    assert store.head("key") is None
    assert temporaries(store) == []


def test_a_store_below_a_file_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = LocalStore(tmp_path / "file" / "store")
    assert store.head("key") is None
    with pytest.raises(StoreError, match="fix:"):
        store.put("key", b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_write_permission(store: LocalStore) -> None:
    store.put("key", b"x")
    store.root.chmod(0o500)
    with pytest.raises(StoreError, match="writable"):
        store.put("other", b"x")
    store.root.chmod(0o700)


def test_a_fork_in_the_middle_of_a_write_does_not_keep_its_lock(store: LocalStore) -> None:
    reading, writing = os.pipe()
    with warnings.catch_warnings(), store._lock("key"):
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
        if pid == 0:
            os.read(reading, 1)
            os._exit(0)
    done = threading.Thread(target=store.put, args=("key", b"x"))
    done.start()
    done.join(5)
    waiting = done.is_alive()
    os.write(writing, b"x")
    os.waitpid(pid, 0)
    assert not waiting


def test_leftovers_of_killed_writers_are_swept(store: LocalStore) -> None:
    code = (
        "import os, signal, sys; from components.store import local; "
        "local._publish = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL); "
        "local.LocalStore(sys.argv[1]).put('key', b'x' * 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.root)], cwd=Path(__file__).parents[4], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(temporaries(store)) == 1
    assert store.head("key") is None
    (mine := store.root / ".rcg-store" / "tmp" / f"{machine()}-{os.getpid()}-x").touch()
    (foreign := store.root / ".rcg-store" / "tmp" / "othermachine-1-x").touch()
    store.put("key", b"y")
    assert sorted(temporaries(store)) == sorted([mine, foreign])


def test_mtimes_grow_also_where_the_file_system_rounds_them(store: LocalStore, tmp_path: Path) -> None:
    future = 2**33 * 10**9  # the old object seems to come from the future
    etag = store.put("key", b"a")
    os.utime(store.local_path("key"), ns=(future, future))
    info = store.head("key")
    assert info is not None
    assert info.etag != etag
    second = store.put("key", b"b", if_match=info.etag)
    assert store.local_path("key").stat().st_mtime_ns > future
    store.put("key", b"c", if_match=second)


@pytest.mark.parametrize(("root", "lock", "folder"), [(0o755, 0o600, 0o755), (0o775, 0o660, 0o775)])
def test_nobody_else_may_write_whatever_the_umask(tmp_path: Path, root: int, lock: int, folder: int) -> None:
    """Who may write a lock, or replace it in its folder, can stop every writer."""
    top = tmp_path / "store"
    top.mkdir()
    top.chmod(root)
    before = os.umask(0)
    try:
        LocalStore(top).put("a/b", b"x")
    finally:
        os.umask(before)
    modes = {path.relative_to(top): path.stat().st_mode & 0o777 for path in top.rglob("*")}
    assert {mode for path, mode in modes.items() if path.parent.name == "locks"} == {lock}
    assert {mode for path, mode in modes.items() if (top / path).is_dir()} == {folder}
    assert modes[Path("a/b")] == 0o444


@pytest.mark.parametrize("call", ["os.link", "fcntl.flock"])
@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_links_or_locks_is_told_as_that(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(call, cannot)
    with pytest.raises(StoreRefusedError, match=r"hard links and file locks[\s\S]*RCG_STORE"):
        store.put("key", b"x", if_absent=True)
    assert temporaries(store) == []
