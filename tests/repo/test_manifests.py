"""k8s/ keeps its promises without a cluster: hardened pods, the lock's Ray, no right that the driver does not use."""

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.settings import Settings
from tests.support.manifests import K8S, Object, built, kubectl, objects, pod_specs

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in K8S.rglob("*.yaml") if path.name != "profile.yaml")
BASE = [found for path in sorted((K8S / "base").glob("*.yaml")) for found in objects(path)]
PODS = [
    (f"{found['kind']} {found['metadata']['name']}{where}", spec)
    for found in BASE
    if found["kind"] != "Kustomization"
    for where, spec in pod_specs(found)
]
RAYJOB = objects(K8S / "base/rayjob.yaml")[0]
CALLS = {
    "create_namespaced_custom_object": ("rayjobs", "create"),
    "get_namespaced_custom_object": ("rayjobs", "get"),
    "list_namespaced_custom_object": ("rayjobs", "list"),
    "delete_namespaced_custom_object": ("rayjobs", "delete"),
    "patch_namespaced_custom_object": ("rayjobs", "patch"),
    "read_namespaced_pod": ("pods", "get"),
    "list_namespaced_pod": ("pods", "list"),
    "read_namespaced_pod_log": ("pods/log", "get"),
    "list_namespaced_event": ("events", "list"),
    "read_namespaced_lease": ("leases", "get"),
    "create_namespaced_lease": ("leases", "create"),
    "replace_namespaced_lease": ("leases", "update"),
}
"""Methods of the Kubernetes client -> what they need a right for."""


def test_every_file_is_listed_or_loaded() -> None:
    listed = set()
    for path in K8S.rglob("kustomization.yaml"):
        (content,) = objects(path)
        patches = [patch["path"] for patch in content.get("patches", []) if "path" in patch]
        entries = [*content.get("resources", []), *patches]
        listed |= {(path.parent / entry).resolve() for entry in entries}
    loose = {path.resolve() for path in FILES if path.name != "kustomization.yaml"} - listed
    assert loose == {(K8S / "base/rayjob.yaml").resolve()}, "applied by nobody"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(K8S).as_posix())
def test_file_holds_kubernetes_objects(path: Path) -> None:
    found = objects(path)
    assert found
    for each in found:
        assert each["apiVersion"]
        assert each["kind"]


def test_there_are_pods_to_check() -> None:
    assert len(PODS) == 6  # submitter, head, workers, PostgreSQL, MLflow, retrain


@pytest.mark.parametrize(("where", "spec"), PODS, ids=[where for where, _ in PODS])
def test_pod_is_hardened(where: str, spec: Object) -> None:
    assert spec["automountServiceAccountToken"] is False
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] >= 1000
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    driver = spec.get("serviceAccountName") == "rcg-driver"  # it pushes to git and asks the API server
    allowed = {"emptyDir", "configMap"} | ({"secret", "projected"} if driver else set())
    for volume in spec.get("volumes", []):
        assert volume.keys() - {"name"} <= allowed, volume["name"]


@pytest.mark.parametrize(("where", "spec"), PODS, ids=[where for where, _ in PODS])
def test_pod_gets_no_variables_of_services(where: str, spec: Object) -> None:
    """RCG_MLFLOW_PORT, made of the Service's name, would be refused as a setting that does not exist."""
    assert spec["enableServiceLinks"] is False


def test_rayjob_template() -> None:
    spec = RAYJOB["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec["backoffLimit"] == 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert sum(10 * 2**n for n in range(spec["submitterConfig"]["backoffLimit"])) > 120, (
        "a dashboard that comes up late"
    )
    assert min(spec[f"{name}DeadlineSeconds"] for name in ("active", "preRunning")) > 0
    assert cluster["authOptions"] == {"mode": "token"}
    head, worker = (group["rayStartParams"] for group in (cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]))
    assert head["num-cpus"] == "0"
    assert head["no-monitor"] == "true"
    assert head["include-log-monitor"] == worker["include-log-monitor"] == "0", "KubeRay drops what is `false`"
    for _, pod in pod_specs(RAYJOB):
        assert pod["serviceAccountName"] == "rcg-worker"
    assert _container("head")["envFrom"] == _container("worker")["envFrom"]


def test_rayjob_names_the_ray_of_the_lock_file() -> None:
    locked = re.search(r"^ray(?:\[[a-z,]+\])?==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked
    assert RAYJOB["spec"]["rayClusterSpec"]["rayVersion"] == locked[1]


def test_mlflow_server_is_the_one_of_the_lock_file() -> None:
    pattern = re.compile(r"^(mlflow|boto3|psycopg2-binary)(?:\[[a-z,]+\])?==(\S+)", re.MULTILINE)
    ours, server = ((path / "requirements.lock").read_text() for path in (ROOT, K8S / "mlflow"))
    assert dict(pattern.findall(server)) == dict(pattern.findall(ours))


def test_namespaces_enforce_restricted() -> None:
    for found in objects(K8S / "base/namespaces.yaml"):
        assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_policy_names_what_the_template_uses() -> None:
    (allowed,) = (found["data"] for found in BASE if found["kind"] == "ConfigMap")
    assert {source["secretRef"]["name"] for source in _container("head")["envFrom"]} == {allowed["secret"]}
    assert {pod["serviceAccountName"] for _, pod in pod_specs(RAYJOB)} == {allowed["serviceAccount"]}


def test_no_network_policy_lets_pods_of_any_namespace_in() -> None:
    """Whoever may label a pod of some namespace would be let in."""
    for found in BASE:
        for rule in found["spec"].get("ingress", []) if found["kind"] == "NetworkPolicy" else []:
            assert rule["from"], found["metadata"]["name"]
            for peer in rule["from"]:
                assert peer.get("namespaceSelector") != {}, found["metadata"]["name"]


def test_driver_has_the_rights_that_it_uses_and_no_others() -> None:
    called = set()
    for path in (ROOT / "flows/executors/kuberay").glob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        kubernetes = {
            name for name in names if re.match(r"(create|read|get|list|delete|patch|replace)_(names|clus)", name)
        }
        assert kubernetes <= CALLS.keys(), "say here which right it needs"
        called |= kubernetes
    used = {CALLS[name] for name in called}
    assert _rights("rcg-jobs") == {right for right in used if right[0] != "leases"}
    assert _rights("rcg-system") == {right for right in used if right[0] == "leases"}


@pytest.mark.parametrize("overlay", ["local", "gpu"])
def test_profile_is_valid_and_its_image_is_admitted(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = K8S / "overlays" / overlay / "profile.yaml"
    monkeypatch.setenv("RCG_PROFILE", str(path))
    values = yaml.safe_load(path.read_text())
    settings = Settings()
    for name, value in values.items():
        found = getattr(settings, name)
        assert (found.model_dump(include=set(value)) if isinstance(value, dict) else found) == value
    assert settings.executor == "kuberay"


@pytest.mark.skipif(kubectl() is None, reason="needs kubectl for kustomize")
@pytest.mark.parametrize("overlay", ["local", "gpu"])
def test_overlay_builds(overlay: str) -> None:
    found = built(f"overlays/{overlay}")
    images = {container["image"] for each in found for _, spec in pod_specs(each) for container in spec["containers"]}
    assert len(images) == 3
    assert all("/" in image for image in images), "an image that no overlay named"
    allowed = next(each["data"]["image"] for each in found if each["metadata"]["name"] == "rcg-admission")
    profile = yaml.safe_load((K8S / "overlays" / overlay / "profile.yaml").read_text())
    assert profile.get("image", f"{allowed}@").startswith((f"{allowed}:", f"{allowed}@"))
    for each in found:
        for where, spec in pod_specs(each):
            test_pod_is_hardened(where, spec)


@pytest.mark.skipif(kubectl() is None, reason="needs kubectl for kustomize")
@pytest.mark.parametrize(
    ("component", "asked"),
    [
        ("node-local-dns", [("kube-system", 53), ("169.254.20.10/32", 53)]),
        ("openshift", [("openshift-dns", 5353)]),
    ],
)
def test_pods_ask_the_dns_of_their_kind_of_cluster(component: str, asked: list[Any], tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/gpu/kustomization.yaml"
    overlay.write_text(overlay.read_text() + f"components: [../../components/{component}]\n")
    policies = [found for found in built(overlay.parent) if found["metadata"]["name"] == "dns"]
    assert sorted(policy["metadata"]["namespace"] for policy in policies) == ["rcg-jobs", "rcg-system"]
    for policy in policies:
        found = []
        for rule in policy["spec"]["egress"]:
            (peer,) = rule["to"]
            labels = peer.get("namespaceSelector", {}).get("matchLabels", {})
            place = labels.get("kubernetes.io/metadata.name") or peer["ipBlock"]["cidr"]
            assert {port["protocol"] for port in rule["ports"]} == {"UDP", "TCP"}
            found += sorted({(place, port["port"]) for port in rule["ports"]})
        assert found == asked


def _container(part: str) -> Any:
    cluster = RAYJOB["spec"]["rayClusterSpec"]
    group = cluster["headGroupSpec"] if part == "head" else cluster["workerGroupSpecs"][0]
    return group["template"]["spec"]["containers"][0]


def _rights(namespace: str) -> set[tuple[str, str]]:
    (role,) = (found for found in BASE if found["kind"] == "Role" and found["metadata"]["namespace"] == namespace)
    return {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


def test_retraining_is_off_until_wanted_and_never_twice_at_once() -> None:
    (job,) = (found for found in BASE if found["kind"] == "CronJob" and found["metadata"]["name"] == "rcg-retrain")
    spec = job["spec"]
    assert (spec["suspend"], spec["concurrencyPolicy"]) == (True, "Forbid")
    assert spec["timeZone"]
    assert min(spec[name] for name in ("startingDeadlineSeconds", "failedJobsHistoryLimit")) > 0
    fail, _ = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert fail["onExitCodes"]["values"] == [2, 3], "75 may succeed later"
