"""A Kubernetes in memory for tests of the driver: it keeps what is created, and tests say what happens to it."""

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from components.errors import ConflictError
from flows.executors.image import code_digest
from flows.executors.kuberay.cluster import Object
from flows.identity.closure import module_digests
from flows.identity.fingerprint import Identity
from flows.runs.records import Spec

IMAGE = "registry.example.com/rcg@sha256:" + "a" * 64
MODULE = "tests.support.tiny_parts"


def spec(stage: str = "parts", **params: Any) -> Spec:
    values = {"numerics": 1, "n_parts": 1, "rows": 1} | params
    identity = Identity(schema_version=1, stage=stage, params=values, inputs={}, modules=module_digests(MODULE))
    assert identity.code == code_digest(MODULE)
    return Spec(
        schema_version=1,
        fingerprint=identity.fingerprint,
        identity=identity,
        inputs={},
        source="demo",
        collection_lock="",
        module=MODULE,
    )


class MemoryCluster:
    """Implements Cluster. `on_get` plays the operator: it may change a job each time somebody looks at it."""

    namespace, server = "rcg-jobs", "https://api.example.com"

    def __init__(self) -> None:
        self.kept: dict[str, Object] = {}
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.pods_now: list[Object] = []
        self.events_now: list[str] = []
        self.lines_now: dict[tuple[str, str], list[str]] = {}
        self.forbidden: set[str] = set()
        self.on_get: Callable[[Object], None] = lambda _job: None
        self.fail: Callable[[str], None] = lambda _verb: None
        self._uids = (f"uid-{n}" for n in itertools.count(1))

    def create_job(self, manifest: Object) -> Object:
        self.fail("create")
        name = manifest["metadata"]["name"]
        if name in self.kept:
            raise ConflictError(f'rayjobs.ray.io "{name}" already exists')
        job = copy.deepcopy(manifest)
        job["metadata"]["uid"] = next(self._uids)
        self.kept[name] = job
        self.created.append(name)
        return copy.deepcopy(job)

    def job(self, name: str) -> Object | None:
        self.fail("get")
        if name in self.kept:
            self.on_get(self.kept[name])
        return copy.deepcopy(self.kept.get(name))

    def jobs(self, labels: dict[str, str]) -> list[Object]:
        self.fail("list")
        return [copy.deepcopy(job) for job in self.kept.values() if labels.items() <= job["metadata"]["labels"].items()]

    def delete_job(self, name: str, uid: str) -> None:
        self.fail("delete")
        if name in self.kept and self.kept[name]["metadata"]["uid"] == uid:
            del self.kept[name]
            self.deleted.append(name)

    def pods(self, labels: dict[str, str]) -> list[Object]:
        self.fail("pods")
        return [] if "job-name" in labels else self.pods_now

    def log(self, _pod: str, _container: str) -> Iterator[str]:
        return iter(())

    def last_lines(self, pod: str, container: str, n: int) -> list[str]:
        return self.lines_now.get((pod, container), [])[-n:]

    def may(self, verb: str, _group: str, resource: str, part: str = "") -> bool:
        return f"{verb} {resource}/{part}".rstrip("/") not in self.forbidden

    def warnings(self, _name: str) -> list[str]:
        return self.events_now


def set_status(job: Object, deployment: str, status: str = "", **more: str) -> None:
    job["status"] = {"jobDeploymentStatus": deployment, "jobStatus": status, "rayClusterName": "cluster-1", **more}
