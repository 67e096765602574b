"""The API server accepts what k8s/ says, refuses what it forbids, and lets the driver do no more than its work."""

import json
import re
import textwrap
import uuid
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from flows.executors.kuberay.manifest import Order, build, read_template
from flows.settings import Settings
from tests.support import cluster_rig
from tests.support.cluster_rig import kubectl
from tests.support.made_runs import a_spec
from tests.support.manifests import K8S, Object, built, objects

IMAGE = cluster_rig.THIN
JOBS, SYSTEM = "rcg-jobs", "rcg-system"
pytestmark = pytest.mark.usefixtures("cluster")


def submit(manifest: Object, *, dry_run: bool = True) -> str:
    """Create an object. Raises: RuntimeError with the server's answer."""
    options = ["--dry-run=server"] if dry_run else []
    return kubectl("create", "--validate=strict", *options, "-f", "-", stdin=yaml.safe_dump(manifest))


@pytest.mark.parametrize("folder", ["base", "overlays/local", "overlays/gpu"])
def test_api_server_accepts_it(folder: str) -> None:
    found = built(folder)
    for each in found:
        if each["kind"] == "StatefulSet":  # the installed one's volume claims cannot be changed any more
            each["metadata"]["name"] += "-dry"
    text = yaml.safe_dump_all(found)
    answer = kubectl(
        "apply", "--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server", "-f", "-", stdin=text
    )
    assert len(answer.splitlines()) == len(found)
    assert "serverside-applied" in answer


@pytest.mark.parametrize("namespace", [JOBS, SYSTEM])
def test_pod_that_breaks_restricted_is_refused(namespace: str) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "rcg-root", "namespace": namespace},
        "spec": {"containers": [{"name": "main", "image": IMAGE, "securityContext": {"privileged": True}}]},
    }
    with pytest.raises(RuntimeError, match='violates PodSecurity "restricted'):
        submit(pod)


def test_gpu_job_gets_pods_that_restricted_admits_and_that_hold_no_token() -> None:
    """What the driver makes of overlays/gpu, on pretended GPUs: only CPU and memory requests and the image differ."""
    profile = yaml.safe_load((K8S / "overlays/gpu/profile.yaml").read_text())
    small = {"image": IMAGE, "image_by_tag": True, "head_cpus": "100m", "head_memory": "3Gi"}
    settings = Settings.model_validate(profile | small | {"worker_cpus": "50m", "worker_memory": "1Gi"})
    order = Order(a_spec("rdm", params={"test": uuid.uuid4().hex}), settings.store, 1)
    submit(build(read_template(None), order, settings), dry_run=False)
    try:
        pods = cluster_rig.wait_until(lambda: running_pods(order.name, 5), "head and four GPU workers running", 240)
        limits = [pod["spec"]["containers"][0]["resources"]["limits"] for pod in pods]
        assert sorted(limit.get("nvidia.com/gpu", "0") for limit in limits) == ["0", "1", "1", "1", "1"]
        for pod in pods:
            assert "serviceAccountToken" not in json.dumps(pod["spec"]["volumes"])
            look = "import os; print(os.path.exists('/var/run/secrets/kubernetes.io'), os.getuid())"
            command = ["exec", pod["metadata"]["name"], "-c", pod["spec"]["containers"][0]["name"], "--", "python"]
            assert kubectl("-n", JOBS, *command, "-c", look).split() == ["False", "1000"]
    finally:
        kubectl("-n", JOBS, "delete", "rayjob", order.name, "--wait=false")


def running_pods(job: str, n: int) -> list[Object]:
    """The Ray pods of a RayJob once n of them run."""
    status = cluster_rig.resource("rayjob", job, JOBS).get("status", {})
    selector = f"ray.io/cluster={status.get('rayClusterName', 'none-yet')}"
    pods: list[Object] = json.loads(kubectl("-n", JOBS, "get", "pods", "-l", selector, "-o", "json"))["items"]
    return pods if len([pod for pod in pods if pod["status"]["phase"] == "Running"]) >= n else []


def test_backup_of_the_docs_is_accepted() -> None:
    text = (K8S.parent / "docs/how-to/run-on-a-cluster.md").read_text()
    block = re.search(r"^    apiVersion: batch/v1\n(?:    .*\n)+", text, re.MULTILINE)
    assert block
    job = yaml.safe_load(textwrap.dedent(block[0]))
    assert "created" in submit(job)
    pod = {"apiVersion": "v1", "kind": "Pod", **job["spec"]["jobTemplate"]["spec"]["template"]}
    pod["metadata"] |= {"name": "rcg-backup", "namespace": SYSTEM}
    assert "created" in submit(pod), "Pod Security looks at pods, not at CronJobs"


@pytest.fixture(scope="module")
def driver(driver_kubeconfig: Path) -> client.ApiClient:
    """The API as the driver's service account sees it."""
    settings = client.Configuration()
    config.load_kube_config(str(driver_kubeconfig), client_configuration=settings)
    return client.ApiClient(settings)


def may(driver: client.ApiClient, verb: str, resource: str, namespace: str) -> bool:
    resource, _, subresource = resource.partition("/")
    group = {"rayjobs": "ray.io", "rayclusters": "ray.io", "leases": "coordination.k8s.io"}.get(resource, "")
    attributes = client.V1ResourceAttributes(
        verb=verb, resource=resource, subresource=subresource, namespace=namespace, group=group
    )
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes))
    answer = client.AuthorizationV1Api(driver).create_self_subject_access_review(review)
    return bool(answer.status.allowed)


def test_driver_may_do_what_its_roles_say_and_nothing_else(driver: client.ApiClient) -> None:
    granted = set()
    for role in objects(K8S / "base/rbac.yaml"):
        for rule in role.get("rules", []):
            place = role["metadata"]["namespace"]
            granted |= {(verb, resource, place) for verb in rule["verbs"] for resource in rule["resources"]}
    verbs = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
    resources = (
        "rayjobs",
        "rayjobs/status",
        "rayclusters",
        "pods",
        "pods/log",
        "pods/exec",
        "events",
        "secrets",
        "configmaps",
        "serviceaccounts",
        "serviceaccounts/token",
        "leases",
    )
    places = (JOBS, SYSTEM, "default", "kube-system")
    asked = {(verb, resource, place) for verb in verbs for resource in resources for place in places}
    assert granted <= asked
    assert {right for right in asked if may(driver, *right)} == granted


@pytest.mark.parametrize("namespace", [JOBS, SYSTEM])
def test_driver_cannot_read_a_secret(driver: client.ApiClient, namespace: str) -> None:
    with pytest.raises(ApiException) as refusal:
        client.CoreV1Api(driver).read_namespaced_secret("rcg-bucket", namespace)
    assert refusal.value.status == 403
    assert 'rcg-driver" cannot get resource "secrets"' in json.loads(refusal.value.body)["message"]
