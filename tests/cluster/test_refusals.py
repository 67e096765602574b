"""What `rcg run` says of a cluster that it cannot use, or that would refuse it: nothing is created."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.executors.kuberay.manifest import store_key
from tests.support import cluster_rig
from tests.support.cluster_jobs import JOBS, Checkout
from tests.support.cluster_rig import kubectl


def jobs_of(place: Checkout) -> str:
    """Names of the RayJobs of its store: other tests have theirs meanwhile."""
    return kubectl("-n", JOBS, "get", "rayjobs", "-l", f"rcg/store={store_key(place.store_uri)}", "-o", "name")


@dataclass(frozen=True)
class Wrong:
    """Something that is wrong from the start."""

    settings: Mapping[str, str]
    words: str
    code: int = 2


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong({"RCG_KUBE_NAMESPACE": "rcg-elsewhere"}, "rcg-elsewhere"),
        Wrong({"RCG_KUBE_CONTEXT": "nowhere"}, "no access to a Kubernetes cluster"),
        Wrong({"RCG_IMAGE": "registry.example.com/other:1"}, "images come from the repository"),
        Wrong({"RCG_SERVICE_ACCOUNT": "default"}, "runs as service account rcg-worker"),
        Wrong({"RCG_IMAGE_BY_TAG": "false"}, "not pinned"),
        Wrong({"RCG_DEVICE": "cuda"}, "no GPU"),
        Wrong({"RCG_WORKERZ": "2"}, "RCG_WORKERS"),
    ],
    ids=lambda wrong: next(iter(wrong.settings)),
)
def test_what_is_wrong_from_the_start_creates_nothing(checkout: Callable[..., Checkout], wrong: Wrong) -> None:
    place = checkout()
    done = place.rcg("run", "collect", **wrong.settings)
    assert done.code == wrong.code, done.text
    assert wrong.words in done.text
    assert "Traceback" not in done.text
    assert jobs_of(place) == ""


def test_bad_params_create_nothing(checkout: Callable[..., Checkout]) -> None:
    place = checkout()
    text = (place.root / "params.yaml").read_text()
    (place.root / "params.yaml").write_text(text.replace("max_reject_share: 0.02", "max_reject_share: many"))
    done = place.rcg("run", "collect")
    assert done.code == 2, done.text
    assert "max_reject_share" in done.text
    assert jobs_of(place) == ""
    assert list(place.store.list("runs")) == []


def test_an_api_server_that_is_not_there(checkout: Callable[..., Checkout], tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    place = checkout()
    text = Path(place.environment["KUBECONFIG"]).read_text()
    kubeconfig.write_text(text.replace(f"{cluster_rig.HOST}:6443", "127.0.0.1:9"))
    done = place.rcg("run", "collect", KUBECONFIG=str(kubeconfig))
    assert done.code == 75, done.text
    assert "the Kubernetes API server does not answer" in done.text
    kubeconfig.write_text(text.replace("token: ", "token: x"))
    done = place.rcg("run", "collect", KUBECONFIG=str(kubeconfig))
    assert done.code == 2, done.text
    assert "does not accept the credentials" in done.text


def test_an_account_without_a_right(checkout: Callable[..., Checkout], tmp_path: Path) -> None:
    kubeconfig = cluster_rig.kubeconfig_of("rcg-worker", JOBS, tmp_path / "kubeconfig")
    done = checkout().rcg("run", "collect", KUBECONFIG=str(kubeconfig))
    assert done.code == 2, done.text
    assert "the account may not list rayjobs in namespace rcg-jobs" in done.text
