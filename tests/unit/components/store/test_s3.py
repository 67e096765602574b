"""What only a bucket can do wrong: lost answers, servers that go away or ignore conditions, settings that are wrong."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from components.errors import ConfigError, ConflictError, RcgError, StoreError, StoreRefusedError
from components.store import open_store, s3_clients, s3_parts
from components.store.s3 import S3Store
from tests.support.s3_faults import FaultyProxy, Request, faulty_proxy, once
from tests.support.s3_rig import S3Server, aws_environment, free_port, moto_server, s3_server
from tests.support.tls import private_authority

pytestmark = pytest.mark.processes

LARGE = bytes(range(256)) * (17 * 2**12)  # 17 MiB: two parts
SKEWED = (403, "RequestTimeTooSkewed")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server("rcg") as endpoint:
        yield endpoint


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    def apply(values: dict[str, str]) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return apply


@pytest.fixture
def proxy(moto: str, environment: Callable[[dict[str, str]], None]) -> Iterator[FaultyProxy]:
    with faulty_proxy(moto) as made:
        environment(aws_environment(made.endpoint))
        yield made


def fresh(patience_s: float = 10.0) -> S3Store:
    return S3Store(f"s3://rcg/{uuid.uuid4().hex}", patience_s=patience_s)


def puts(request: Request) -> bool:
    return request.method == "PUT"


def test_opening_asks_nothing() -> None:
    store = open_store("s3://bucket/some/prefix/")
    assert isinstance(store, S3Store)
    assert store.uri == "s3://bucket/some/prefix"
    assert store.local_path("key") is None


def test_a_create_whose_answer_is_lost_is_ours(proxy: FaultyProxy) -> None:
    store = fresh()
    proxy.faults = [once(puts, "lose")]
    etag = store.put("key", b"mine", if_absent=True)
    info = store.head("key")
    assert info is not None
    assert info.etag == etag
    assert store.get("key") == b"mine"


def test_a_swap_whose_answer_is_lost_is_ours(proxy: FaultyProxy) -> None:
    store = fresh()
    first = store.put("key", b"first")
    proxy.faults = [once(puts, "lose")]
    second = store.put("key", b"second", if_match=first)
    assert store.put("key", b"third", if_match=second) != first


@pytest.mark.parametrize("fault", ["lose", (500, "InternalError")])
def test_a_create_that_another_writer_won_meanwhile_is_a_conflict(proxy: FaultyProxy, fault: object) -> None:
    """The same bytes do not make it ours."""
    store, other = fresh(), []

    def win(request: Request) -> None:
        if puts(request) and not other:
            other.append(request)
            store.put("key", b"equal", if_absent=True)

    proxy.faults = [win, once(puts, (500, "InternalError"), times=2)]
    with pytest.raises(ConflictError):
        store.put("key", b"equal", if_absent=True)


def test_a_swap_of_an_absent_key_is_a_conflict_whatever_the_server_calls_it(proxy: FaultyProxy) -> None:
    proxy.faults = [once(puts, (404, "NoSuchKey"))]
    with pytest.raises(ConflictError):
        fresh().put("key", b"x", if_match="0" * 32)


def test_a_server_that_is_busy_is_asked_again(proxy: FaultyProxy, tmp_path: Path) -> None:
    store = fresh()
    (source := tmp_path / "source").write_bytes(b"data")
    proxy.faults = [once(puts, (409, "ConditionalRequestConflict"), times=2)]
    etag = store.put("key", b"data", if_absent=True)
    proxy.faults = [once(puts, (409, "ConditionalRequestConflict"), times=2)]
    store.put("key", b"data", if_match=etag)
    for busy in ((503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")):
        for act in (
            lambda: store.get("key"),
            lambda: store.head("key"),
            lambda: list(store.list("")),
            lambda: store.upload("other", source),
            lambda: store.download("key", tmp_path / "target"),
            lambda: store.delete("other"),
        ):
            proxy.faults = [once(lambda _: True, busy)]
            before = len(proxy.seen)
            act()
            assert len(proxy.seen) >= before + 2
    assert (tmp_path / "target").read_bytes() == b"data"


def test_an_answer_that_breaks_off_is_asked_for_again(proxy: FaultyProxy, tmp_path: Path) -> None:
    store = fresh()
    store.put("key", LARGE)
    for act in (lambda: store.get("key"), lambda: store.download("key", tmp_path / "target")):
        proxy.faults = [once(lambda request: request.method == "GET", "cut")]
        data = act()
        assert data in (LARGE, None)
    assert (tmp_path / "target").read_bytes() == LARGE


def test_a_long_listing_goes_on_where_it_broke_off(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    monkeypatch.setattr(s3_clients, "_PAGE", 10)
    store = fresh()
    names = [f"{i:02d}" for i in range(25)]
    for name in names:
        store.put(f"list/{name}", b"")
    pages = [0]

    def second_page(request: Request) -> tuple[int, str] | None:
        pages[0] += "list-type" in request.path
        return (503, "SlowDown") if "list-type" in request.path and pages[0] == 2 else None

    proxy.faults = [second_page]
    assert [info.key for info in store.list("list")] == [f"list/{name}" for name in names]
    assert pages[0] == 4


def test_a_server_that_stays_away_is_given_up(environment: Callable[[dict[str, str]], None]) -> None:
    environment(aws_environment(f"http://127.0.0.1:{free_port()}"))
    store, began = fresh(patience_s=1.0), time.monotonic()
    for act in (lambda: store.get("key"), lambda: store.put("key", b"", if_absent=True), lambda: list(store.list(""))):
        with pytest.raises(StoreError, match="does not answer") as caught:
            act()
        assert caught.value.exit_code == 75
        assert "AWS_ENDPOINT_URL_S3" in str(caught.value)
    assert time.monotonic() - began < 15


def test_a_server_that_comes_back_is_waited_for(tmp_path: Path, environment: Callable[[dict[str, str]], None]) -> None:
    with s3_server(tmp_path / "server") as server:
        environment(server.environment)
        store = fresh(patience_s=60)
        store.put("before", b"before")
        (source := tmp_path / "large").write_bytes(LARGE)
        results: list[object] = []
        server.stop()
        work = (
            lambda: results.append(store.get("before")),
            lambda: results.append(store.put("new", b"x", if_absent=True)),
            lambda: results.append(store.upload("large", source)),
        )
        threads = [threading.Thread(target=act) for act in work]
        for thread in threads:
            thread.start()
        time.sleep(2)
        assert not results
        server.start()
        for thread in threads:
            thread.join(60)
        assert len(results) == 3
        store.download("large", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == LARGE


def open_uploads() -> list[object]:
    found: list[object] = boto3.client("s3").list_multipart_uploads(Bucket="rcg").get("Uploads", [])
    return found


def test_a_large_object_goes_and_comes_in_parts(rig: S3Server, environment: Callable, tmp_path: Path) -> None:
    environment(rig.environment)
    store = fresh()
    (source := tmp_path / "source").write_bytes(LARGE)
    before = rig.requests().count("s3_UploadPart")
    store.upload("large", source)
    assert rig.requests().count("s3_UploadPart") == before + 2
    store.download("large", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == LARGE
    assert open_uploads() == []


def test_an_upload_that_fails_leaves_nothing(proxy: FaultyProxy, tmp_path: Path) -> None:
    store = fresh(patience_s=1.0)
    (source := tmp_path / "source").write_bytes(LARGE)
    for fault, error in (((403, "AccessDenied"), ConfigError), ((500, "InternalError"), StoreError)):
        proxy.faults = [once(lambda request: "partNumber=2" in request.path, fault, times=1000)]
        with pytest.raises(error):
            store.upload("large", source)
        assert list(store.list("")) == []
        assert open_uploads() == []


def test_the_lost_answer_to_the_end_of_an_upload(proxy: FaultyProxy, tmp_path: Path) -> None:
    store = fresh()
    (source := tmp_path / "source").write_bytes(LARGE)
    finish = once(lambda request: request.method == "POST" and "uploadId=" in request.path, "lose")
    proxy.faults = [finish]
    store.upload("large", source)
    assert store.get("large") == LARGE
    assert open_uploads() == []


def test_a_download_is_of_one_version(proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_parts, "PART_BYTES", 1000)
    store = fresh()
    store.put("key", b"1" * 9999)
    replaced: list[Request] = []

    def replace(request: Request) -> None:
        if request.headers.get("Range", request.headers.get("range")) == "bytes=1000-1999" and not replaced:
            replaced.append(request)
            store.put("key", b"2" * 9000)

    proxy.faults = [replace]
    store.download("key", tmp_path / "target")
    assert replaced
    assert (tmp_path / "target").read_bytes() == b"2" * 9000


def test_a_full_disk_is_named(proxy: FaultyProxy, tmp_path: Path) -> None:
    store = fresh()
    store.put("key", b"x")
    (tmp_path / "file").touch()
    with pytest.raises(StoreRefusedError, match="cannot write"):
        store.download("key", tmp_path / "file" / "target")


def test_the_probe_remembers_and_stays_out_of_sight(rig: S3Server, environment: Callable) -> None:
    environment(rig.environment)
    store = fresh()
    store.prove()
    before = len(rig.requests())
    fresh_handle = S3Store(store.uri)
    fresh_handle.prove()
    assert rig.requests()[before:] == ["s3_GetObject"]
    fresh_handle.prove(again=True)
    assert len(rig.requests()) > before + 5
    assert list(store.list("")) == []
    left = boto3.client("s3").list_objects_v2(Bucket="rcg", Prefix=store.uri.removeprefix("s3://rcg/"))["Contents"]
    assert len(left) == 1  # the marker


@pytest.mark.parametrize(("header", "name"), [("if-none-match", "a second create"), ("if-match", "a stale overwrite")])
def test_a_server_that_ignores_a_condition_is_found_out(proxy: FaultyProxy, header: str, name: str) -> None:
    proxy.forget = {header}
    store = fresh()
    for again in (False, True):
        with pytest.raises(ConfigError, match=name) as caught:
            store.prove(again=again)
    assert proxy.endpoint in str(caught.value)
    proxy.forget = set()
    store.prove()


def test_a_server_that_creates_what_if_match_does_not_find_is_found_out(proxy: FaultyProxy) -> None:
    """A lease that was deleted would come back to life."""
    existing: set[str] = set()

    def forgetful(request: Request) -> None:
        key = request.path.partition("?")[0]
        proxy.forget = {"if-match"} if request.method == "PUT" and key not in existing else set()
        existing.add(key)

    proxy.faults = [forgetful]
    store = fresh()
    with pytest.raises(ConfigError, match="an overwrite of nothing"):
        store.prove()
    assert boto3.client("s3").list_objects_v2(Bucket="rcg", Prefix=store.uri.removeprefix("s3://rcg/"))["KeyCount"] == 0


@pytest.mark.parametrize("fault", [(501, "NotImplemented"), (501, "")])
def test_a_server_without_conditional_writes_is_named_at_once(proxy: FaultyProxy, fault: tuple[int, str]) -> None:
    def conditional(request: Request) -> bool:
        return {name.lower() for name in request.headers} & {"if-match", "if-none-match"} != set()

    proxy.faults = [once(conditional, fault, times=1000)]
    store, start = fresh(patience_s=60.0), time.monotonic()
    for act in (store.prove, lambda: store.put("key", b"x", if_absent=True)):
        with pytest.raises(ConfigError, match="the S3 server lacks") as caught:
            act()
        assert "conditional writes" in str(caught.value)
    assert time.monotonic() - start < 30, "it is not asked again and again"


def test_a_server_without_trailing_checksums_gets_them_in_headers(
    moto: str, environment: Callable, tmp_path: Path
) -> None:
    """boto3 puts them after the body where there is TLS, which older servers refuse, or take for data."""
    certificate, context = private_authority(tmp_path)
    (source := tmp_path / "source").write_bytes(LARGE)
    key = uuid.uuid4().hex
    with faulty_proxy(moto, context) as proxy:
        environment(aws_environment(proxy.endpoint) | {"AWS_CA_BUNDLE": str(certificate)})
        trailing = lambda request: "x-amz-trailer" in {name.lower() for name in request.headers}  # noqa: E731
        proxy.faults = [once(trailing, (501, "NotImplemented"), times=1000)]
        control = s3_clients.Control("rcg")
        s3_parts.MultipartUpload(control, s3_clients.Objects(control), key, 5.0).send(source, len(LARGE))
        assert control.call("get_object", Key=key)["Body"].read() == LARGE
        sent = [request.headers for request in proxy.seen if "partNumber=" in request.path]
        assert all("x-amz-checksum-crc32" in {name.lower() for name in headers} for headers in sent)


def test_a_server_behind_a_certificate_of_ones_own_is_trusted_by_both_clients(
    moto: str, environment: Callable, tmp_path: Path
) -> None:
    certificate, context = private_authority(tmp_path)
    with faulty_proxy(moto, context) as proxy:
        environment(aws_environment(proxy.endpoint))
        for act in (lambda: fresh().put("key", b"x"), fresh().prove):
            with pytest.raises(ConfigError, match=r"certificate[\s\S]*AWS_CA_BUNDLE"):
                act()
        environment({"AWS_CA_BUNDLE": str(certificate)})
        store = fresh()
        store.prove()
        store.put("key", b"mine", if_absent=True)
        assert store.get("key") == b"mine"
        environment({"AWS_CA_BUNDLE": str(tmp_path / "absent.pem")})
        with pytest.raises(ConfigError, match="AWS_CA_BUNDLE"):
            fresh().get("key")


def test_a_server_that_knows_no_checksums_takes_parts(proxy: FaultyProxy, tmp_path: Path) -> None:
    proxy.forget = {"x-amz-checksum-crc32", "x-amz-checksum-algorithm", "x-amz-sdk-checksum-algorithm"}
    (source := tmp_path / "source").write_bytes(LARGE)
    store = fresh()
    store.upload("key", source)
    store.download("key", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == LARGE


def test_a_key_that_may_only_read_is_left_in_peace(proxy: FaultyProxy) -> None:
    proxy.faults = [once(puts, (403, "AccessDenied"), times=1000)]
    store = fresh()
    store.prove()
    with pytest.raises(ConfigError, match="refuses access"):
        store.prove(again=True)
    with pytest.raises(ConfigError, match="s3:PutObject"):
        store.put("key", b"x")


WRONG = {
    "bucket": ("s3://no-such-bucket/x", {}, "the bucket does not exist"),
    "key": ("s3://rcg/x", {"AWS_ACCESS_KEY_ID": "nobody"}, "does not accept the access key"),
    "secret": ("s3://rcg/x", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "does not accept the secret key"),
    "region": ("s3://rcg/x", {"AWS_DEFAULT_REGION": "eu-west-1"}, "another region"),
    "credentials": ("s3://rcg/x", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no S3 credentials"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_settings_are_named_at_once(rig: S3Server, environment: Callable, wrong: str) -> None:
    uri, changes, words = WRONG[wrong]
    environment(rig.environment | changes)
    store = S3Store(uri)
    acts = [lambda: store.put("key", b""), lambda: store.get("key"), lambda: list(store.list("")), store.prove]
    if wrong != "bucket":  # the answer to a HEAD says 404 for both
        acts.append(lambda: store.head("key"))
    for act in acts:
        with pytest.raises(ConfigError, match=words) as caught:
            act()
        assert "fix:" in str(caught.value)
        assert "secret" not in str(caught.value.got).lower()


def test_a_wrong_clock_is_named(proxy: FaultyProxy) -> None:
    proxy.faults = [once(lambda _: True, SKEWED, times=1000)]
    store = fresh()
    for act in (lambda: store.put("key", b""), lambda: store.head("key"), lambda: list(store.list(""))):
        with pytest.raises(ConfigError, match="clock"):
            act()


def test_a_name_that_is_already_a_folder_is_refused(rig: S3Server, environment: Callable) -> None:
    """This server keeps objects as files; others hold both."""
    environment(rig.environment)
    store = fresh()
    store.put("a", b"x")
    with pytest.raises(RcgError) as caught:
        store.put("a/b", b"x")
    assert isinstance(caught.value, StoreRefusedError)
