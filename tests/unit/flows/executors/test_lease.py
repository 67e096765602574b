"""The Lease against an API with Kubernetes' rules: a resourceVersion that must match, and one object per name."""

import contextlib
import copy
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from components.errors import ConflictError, SupersededError
from flows.executors.kuberay.lease import KubeLease


class Api:
    """One Lease object, replaced only by whoever knows its version."""

    def __init__(self) -> None:
        self.object: dict[str, Any] | None = None
        self.version = 0
        self._lock = threading.Lock()

    def lease(self, name: str) -> dict[str, Any] | None:
        assert name == "rcg-retrain"
        return copy.deepcopy(self.object)

    def put_lease(self, name: str, lease: dict[str, Any]) -> dict[str, Any]:
        assert name == "rcg-retrain"
        with self._lock:
            known = lease["metadata"].get("resourceVersion")
            present = None if self.object is None else self.object["metadata"]["resourceVersion"]
            if known != present:
                raise ConflictError("the object has been modified")
            self.version += 1
            metadata = lease["metadata"] | {"resourceVersion": str(self.version)}
            self.object = copy.deepcopy(lease | {"metadata": metadata})
            return copy.deepcopy(self.object)


def _lease(api: Api, holder: str) -> KubeLease:
    return KubeLease(api, holder, duration_s=2.0, poll_s=0.02)


def _holder(api: Api) -> str:
    assert api.object is not None
    return str(api.object["spec"]["holderIdentity"])


def test_it_is_held_renewed_and_released() -> None:
    api = Api()
    with _lease(api, "a").held() as check:
        first = api.version
        time.sleep(1.5)
        check()
        assert _holder(api) == "a"
        assert api.version > first, "renewed"
    assert _holder(api) == ""
    with _lease(api, "b").held():
        assert _holder(api) == "b"


def test_the_second_is_told_who_holds_it() -> None:
    api = Api()
    told = pytest.raises(ConflictError, match=r"under way[\s\S]*pod one")
    with _lease(api, "pod one").held(), told, _lease(api, "pod two").held():
        pass


def test_that_of_a_dead_holder_is_taken_over_and_the_dead_one_notices_if_it_was_not() -> None:
    api = Api()
    api.put_lease("rcg-retrain", _lease(api, "dead")._spelled(None, "dead"))
    started = time.monotonic()
    with _lease(api, "next").held() as check:
        assert time.monotonic() - started > 2.0
        _steal(api)
        with pytest.raises(SupersededError, match="was lost"):
            until_raises(check)
    assert _holder(api) == "thief", "what is not ours is not released"


def _steal(api: Api) -> None:
    while _holder(api) != "thief":
        present = api.lease("rcg-retrain")
        assert present is not None
        with contextlib.suppress(ConflictError):
            api.put_lease("rcg-retrain", present | {"spec": {"holderIdentity": "thief"}})


def until_raises(check: Callable[[], None], timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        check()
        time.sleep(0.05)
