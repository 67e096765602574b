"""The README's way with everything in buckets: pictures and store on a real S3 server, through the command line."""

import shutil
from collections import Counter
from collections.abc import Iterator

import pytest

from components.collection.source import open_source
from tests.support.pipelines import stages_of
from tests.support.projects import Project
from tests.support.s3_rig import S3Server, s3_server

STAGES = stages_of("smoke")

MOST_REQUESTS = 150
"""Of one stage that is looked up or run, bundle aside; about 100 were seen."""


class Bucketed(Project):
    """A project whose pictures and store are on `server`."""

    server: S3Server
    timeout_s = 900

    @property
    def settings(self) -> dict[str, str]:
        return super().settings | self.server.environment | {"RCG_STORE": "s3://rcg/store"}

    def counted(self, *command: str) -> tuple[str, Counter[str]]:
        """Output, and the requests that it took by operation."""
        before = len(self.server.requests())
        text = self.run(*command)
        return text, Counter(self.server.requests()[before:])


def upload_demo(server: S3Server) -> None:
    """The demo collection as objects below s3://pictures/digits."""
    client, source = server.client(), open_source("demo")
    for item in source.list():
        client.put_object(Bucket="pictures", Key=f"digits/{item.key}", Body=source.read(item.key))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucketed]:
    base = tmp_path_factory.mktemp("s3")
    with s3_server(base / "server", "rcg", "pictures") as server:
        upload_demo(server)
        made = Bucketed(base / "project", base / "unused")
        made.server = server
        made.copy_code()
        made.rcg("preset", "use", "smoke")
        made.rcg("snapshot", "s3://pictures/digits")
        for stage in STAGES:
            made.rcg("run", stage)
        yield made
    shutil.rmtree(base)


def test_every_stage_left_its_artifact_here_and_its_bytes_there(project: Bucketed) -> None:
    for name in STAGES:
        assert (project.root / "artifacts" / name / "manifest.json").is_file()
    assert project.rcg("status").count(" done ") == len(STAGES)
    assert not (project.root / ".rcg/store").exists()
    assert "etag:" in (project.root / "collection.lock").read_text()


def test_what_dvc_does_not_know_the_store_does_and_is_asked_little(project: Bucketed) -> None:
    text, requests = project.counted("rcg", "repro")
    assert text.count("already done") == len(STAGES)
    assert not requests["s3_PutObject"]
    assert requests.total() < MOST_REQUESTS * len(STAGES)
    text, requests = project.counted("rcg", "repro")
    assert "up to date" in text
    assert not requests


def test_doctor_proves_the_server(project: Bucketed) -> None:
    told = project.rcg("doctor")
    assert "ok    store      s3://rcg/store honors conditional writes" in told


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"RCG_STORE": "s3://nowhere/store"}, "the bucket does not exist"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_DEFAULT_REGION": "eu-central-1"}, "AWS_DEFAULT_REGION"),
        ({"RCG_STORE": "s3://Not A Bucket"}, "s3://bucket/prefix"),
    ],
)
def test_settings_that_are_wrong_are_named(project: Bucketed, env: dict[str, str], words: str) -> None:
    told = project.rcg("run", "rdm", code=2, **env)
    assert words in told
    assert words in project.rcg("doctor", code=2, **env)


def test_a_picture_that_was_replaced_is_named(project: Bucketed) -> None:
    """Last: it changes the bucket."""
    key, client = "digits/digits/0007.pgm", project.server.client()
    data = client.get_object(Bucket="pictures", Key=key)["Body"].read()
    client.put_object(Bucket="pictures", Key=key, Body=data[:-1] + bytes([data[-1] ^ 1]))
    assert "digits/0007.pgm" in project.rcg("snapshot", code=3)
    project.edit("params.yaml", "numerics: 1", "numerics: 2")  # of collect, which reads nothing twice otherwise
    assert "digits/0007.pgm has been replaced" in project.rcg("run", "collect", code=3)
