"""Pictures in a bucket: what a listing holds, and that nothing is read but what was listed."""

import gzip
import itertools
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from components.collection.facts import examine, read_pinned
from components.collection.lock import Entry, read_lock
from components.collection.snapshot import take_snapshot, verify_source
from components.collection.source import FolderSource, open_source
from components.collection.source_base import Source
from components.errors import ConfigError, DataError
from components.images.config import DecodeRecipe
from tests.support.s3_faults import FaultyProxy, faulty_proxy, once
from tests.support.s3_rig import aws_environment, moto_server, s3_client, s3_server

pytestmark = pytest.mark.processes

RECIPE = DecodeRecipe(background=(0, 0, 0), max_pixels=10**6)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server("plain", "versioned") as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3"), "plain", "versioned") as server:
        yield server.endpoint


@pytest.fixture(scope="module", params=["moto", "rig"])
def server(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """Endpoint and a client of it, which takes a third of a second to make."""
    endpoint = request.getfixturevalue(request.param)
    client = s3_client(endpoint)
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    return endpoint, client


@pytest.fixture
def client(server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    endpoint, made = server
    for name, value in aws_environment(endpoint).items():
        monkeypatch.setenv(name, value)
    return made


class Folder:
    """A fresh folder of a bucket."""

    def __init__(self, client: Any, bucket: str) -> None:
        self.client, self.bucket, self.name = client, bucket, uuid.uuid4().hex

    @cached_property
    def source(self) -> Source:
        """One for the whole test: it makes a client of its own, and holds nothing that was listed."""
        return open_source(f"s3://{self.bucket}/{self.name}/")

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.name}/{key}", Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"{self.name}/{key}")


@pytest.fixture(params=["plain", "versioned"])
def folder(request: pytest.FixtureRequest, client: Any) -> Folder:
    made = Folder(client, request.param)
    for i in range(5):
        made.put(f"{i}.pgm", b"P5\n2 2\n255\n" + bytes([i] * 4))
    return made


def test_it_lists_what_a_folder_would(client: Any, tmp_path: Path) -> None:
    names = ["a-b.png", "a.JPG", "a/b c.png", "é/%41+&.webp", "metadata.csv", "z/metadata.jsonl"]
    others = ["notes.txt", "z/readme"]
    hidden = [".hidden.png", "z/.cache/x.png"]
    made = Folder(client, "plain")
    for name in (*names, *others, *hidden):
        made.put(name, name.encode())
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    made.put("z/", b"")  # what a console makes for a folder
    source, local = made.source, FolderSource(tmp_path)
    listed = list(source.list())
    assert [(i.key, i.size) for i in listed] == [(i.key, i.size) for i in local.list()]
    assert [i.key for i in listed] == sorted(names)
    assert str(source.left_out) == str(local.left_out) == "1 .txt, 1 without a suffix"
    assert all(source.read(item.key) == item.key.encode() for item in listed)
    assert source.read(listed[0].key, listed[0].pin) == listed[0].key.encode()
    assert [source.content_pin(i.key) for i in listed] == [local.content_pin(i.key) for i in listed]


def test_the_whole_bucket_is_a_source(client: Any) -> None:
    made = Folder(client, "plain")
    made.put("a.png", b"x")
    assert f"{made.name}/a.png" in [item.key for item in open_source("s3://plain").list()]


def test_pins_name_the_version_where_there_is_one(folder: Folder) -> None:
    pins = [item.pin or "" for item in folder.source.list()]
    assert len(set(pins)) == 5
    assert all(pin.startswith("etag:") and " " not in pin for pin in pins)
    assert all((",version:" in pin) == (folder.bucket == "versioned") for pin in pins)


def test_a_deleted_object_is_not_listed(folder: Folder) -> None:
    folder.delete("3.pgm")
    assert [item.key for item in folder.source.list()] == ["0.pgm", "1.pgm", "2.pgm", "4.pgm"]


def test_what_was_replaced_is_never_read(folder: Folder, tmp_path: Path) -> None:
    """With versions the listed object is still there; without, the other one is refused by name."""
    take_snapshot(folder.source, tmp_path / "lock", rebuild=False)
    lock = read_lock(tmp_path / "lock")
    (entry,) = [e for e in lock.entries(lock.chunks[0]) if e.key == "3.pgm"]
    folder.put("3.pgm", b"P5\n2 2\n255\n" + b"abcd")  # of the same size
    if folder.bucket == "versioned":
        assert examine(folder.source, entry, RECIPE)["sha256"] is not None
        assert read_pinned(folder.source, entry).endswith(bytes([3] * 4))
    else:
        with pytest.raises(DataError, match=r"3\.pgm has been replaced"):
            examine(folder.source, entry, RECIPE)
    verify_source(folder.source, lock)
    folder.put("3.pgm", b"longer than it was before")
    with pytest.raises(DataError, match=r"3\.pgm.*not the same"):
        verify_source(folder.source, lock)


def test_snapshots_notice_what_was_replaced_and_rebuild_tells_it_apart(folder: Folder, tmp_path: Path) -> None:
    path = tmp_path / "collection.lock"
    assert take_snapshot(folder.source, path, rebuild=False).n_new == 5
    assert not take_snapshot(folder.source, path, rebuild=False).changed
    before = read_lock(path).identity
    folder.put("3.pgm", b"P5\n2 2\n255\n" + b"abcd")
    folder.put("5.pgm", b"P5\n2 2\n255\n" + b"efgh")
    with pytest.raises(DataError, match=r"1 changed: 3\.pgm"):
        take_snapshot(folder.source, path, rebuild=False)
    assert read_lock(path).identity == before
    take_snapshot(folder.source, path, rebuild=True)
    after = read_lock(path)
    pins = {e.key: e.pin for e in after.entries(after.chunks[0])}
    assert pins["3.pgm"] == folder.source.content_pin("3.pgm")
    assert pins["2.pgm"].startswith("etag:")
    take_snapshot(folder.source, path, rebuild=True)
    assert read_lock(path).identity == after.identity  # and again, it stays the same collection
    folder.delete("1.pgm")
    with pytest.raises(DataError, match=r"1 gone: 1\.pgm"):
        take_snapshot(folder.source, path, rebuild=False)


def test_a_moved_bucket_is_the_same_collection(client: Any, tmp_path: Path) -> None:
    places = [Folder(client, bucket) for bucket in ("plain", "plain", "versioned")]
    for i, place in itertools.product(range(4), places):
        place.put(f"{i}.png", bytes([i]))
    path = tmp_path / "collection.lock"
    take_snapshot(places[0].source, path, rebuild=False)
    identity = read_lock(path).identity
    for place in places[1:]:
        assert not take_snapshot(place.source, path, rebuild=False).changed
        other = tmp_path / uuid.uuid4().hex
        take_snapshot(place.source, other, rebuild=False)
        assert read_lock(other).identity == identity


def test_what_is_gone_is_named(folder: Folder) -> None:
    with pytest.raises(DataError, match=r"9\.pgm is gone"):
        folder.source.read("9.pgm")
    with pytest.raises(DataError, match=r"9\.pgm is gone"):
        read_pinned(folder.source, Entry("9.pgm", 1, f"etag:{'0' * 32}"))


def test_a_missing_bucket_is_a_configuration_error(client: Any) -> None:
    with pytest.raises(ConfigError, match="bucket does not exist"):
        list(open_source("s3://no-such-bucket/x").list())


@pytest.fixture
def proxy(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with faulty_proxy(moto) as made:
        for name, value in aws_environment(made.endpoint).items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.mark.parametrize("bucket", ["plain", "versioned"])
def test_a_long_listing_survives_a_busy_server(
    proxy: FaultyProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    client = s3_client(proxy.endpoint)
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    made = Folder(client, bucket)
    for i in range(25):
        made.put(f"{i:02d}.png", b"x")
        made.put(f"{i:02d}.png", gzip.compress(b"x"))  # an older version beneath
    proxy.faults = [once(lambda r: "arker=" in r.path or "continuation" in r.path, (503, "SlowDown"))]
    assert [item.key for item in made.source.list()] == [f"{i:02d}.png" for i in range(25)]


def test_a_listing_without_the_right_to_see_versions_goes_by_etag(proxy: FaultyProxy) -> None:
    made = Folder(s3_client(proxy.endpoint), "plain")
    made.put("a.png", b"x")
    proxy.faults = [once(lambda r: "versioning" in r.path, (403, "AccessDenied"), times=9)]
    assert [item.key for item in made.source.list()] == ["a.png"]
