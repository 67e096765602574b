from pathlib import Path
from typing import Any

import pytest
import yaml

from components.errors import ConfigError
from flows.executors.kuberay.manifest import (
    TEMPLATE,
    Order,
    attempt_of,
    build,
    is_same_work,
    n_threads,
    read_template,
    store_key,
)
from flows.pipeline.table import KINDS
from flows.settings import Settings, variables
from tests.support.rayjobs import IMAGE, spec

STORE = "s3://bucket/prefix"
ORDER = Order(spec(), STORE, 2)


def settings(**values: Any) -> Settings:
    return Settings.model_validate({"executor": "kuberay", "image": IMAGE, "store": STORE} | values)


def made(**values: Any) -> dict[str, Any]:
    return build(read_template(None), ORDER, settings(**values))


def pods(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return {
        "submitter": job["spec"]["submitterPodTemplate"],
        "head": cluster["headGroupSpec"]["template"],
        "worker": cluster["workerGroupSpecs"][0]["template"],
    }


def env(pod: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in pod["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("stage", KINDS)
def test_names_fit_the_operators_limit_and_say_which_attempt(stage: str) -> None:
    name = Order(spec(stage), STORE, 999).name
    assert len(name) <= 47
    assert name.startswith(f"rcg-{stage}-{spec(stage).fingerprint[:10]}-{store_key(STORE)}-a")
    assert attempt_of(name) == 999
    assert attempt_of("somebody-elses") == 0


def test_two_stores_do_not_share_names_but_one_with_a_slash_more_is_the_same() -> None:
    assert Order(spec(), "s3://other/prefix", 2).name != ORDER.name
    assert Order(spec(), f"{STORE}/", 2).name == ORDER.name
    assert ORDER.spec_uri == Order(spec(), f"{STORE}/", 2).spec_uri == f"{STORE}/{spec().prefix}/spec.json"


def test_labels_fit_and_annotations_hold_all() -> None:
    metadata = made(job_labels={"kueue.x-k8s.io/queue-name": "images"}, job_annotations={"team": "a"})["metadata"]
    assert metadata["name"] == ORDER.name
    assert all(len(value) <= 63 for value in metadata["labels"].values())
    assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "images"
    assert metadata["annotations"]["rcg/fingerprint"] == spec().fingerprint
    assert metadata["annotations"]["rcg/spec"] == ORDER.spec_uri
    assert metadata["annotations"]["team"] == "a"
    assert is_same_work({"metadata": metadata}, ORDER)
    assert not is_same_work({"metadata": metadata}, Order(spec(rows=2), STORE, 2))
    assert not is_same_work({"metadata": {}}, ORDER)


def test_every_container_runs_the_image_and_every_pod_carries_the_labels() -> None:
    job = made(service_account="other", priority_class="high", bucket_secret="keys", image_pull_policy="Always")
    for pod in pods(job).values():
        assert pod["metadata"]["labels"].items() >= ORDER.labels.items()
        assert pod["spec"]["serviceAccountName"] == "other"
        assert pod["spec"]["priorityClassName"] == "high"
        assert [(c["image"], c["imagePullPolicy"]) for c in pod["spec"]["containers"]] == [(IMAGE, "Always")]
    head, worker = (pods(job)[role]["spec"]["containers"][0] for role in ("head", "worker"))
    assert [c["envFrom"][0]["secretRef"]["name"] for c in (head, worker)] == ["keys", "keys"]


def test_unset_settings_leave_the_template_as_it_is() -> None:
    template, job = read_template(None), made()
    for role, pod in pods(job).items():
        before = pods(template)[role]["spec"]
        assert pod["spec"]["containers"][0]["resources"] == before["containers"][0]["resources"]
        assert {k: v for k, v in pod["spec"].items() if k != "containers"} == {
            k: v for k, v in before.items() if k != "containers"
        }
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit"):
        assert job["spec"][field] == template["spec"][field]
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert template == read_template(None)  # building changed nothing of it


def test_a_quota_gets_its_cpu_limits_and_a_fabric_its_interfaces() -> None:
    assert not any("cpu" in pod["spec"]["containers"][0]["resources"]["limits"] for pod in pods(made()).values())
    assert env(pods(made())["worker"]).keys().isdisjoint({"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"})
    job = pods(made(cpu_limits=True, worker_cpus="3", gloo_interface="net1", nccl_interface="^lo,docker"))
    for pod in job.values():
        resources = pod["spec"]["containers"][0]["resources"]
        assert resources["limits"]["cpu"] == resources["requests"]["cpu"]
    for role in ("head", "worker"):
        assert env(job[role])["GLOO_SOCKET_IFNAME"] == "net1"
        assert env(job[role])["NCCL_SOCKET_IFNAME"] == "^lo,docker"


def test_pods_are_kept_out_of_meshes() -> None:
    """A proxy beside the submitter would keep its Job from ending."""
    for pod in pods(made()).values():
        assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
        assert pod["metadata"]["annotations"]["linkerd.io/inject"] == "disabled"


def test_sizes_and_deadlines_are_set() -> None:
    job = made(
        workers=2,
        worker_cpus="3500m",
        worker_memory="8Gi",
        head_cpus="500m",
        head_memory="2Gi",
        active_deadline_s=60,
        pre_running_deadline_s=30,
        job_ttl_s=10,
    )
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert [group[key] for key in ("replicas", "minReplicas", "maxReplicas")] == [2, 2, 2]
    head, worker = (pods(job)[role]["spec"]["containers"][0]["resources"] for role in ("head", "worker"))
    assert (head["requests"], head["limits"]) == ({"cpu": "500m", "memory": "2Gi"}, {"memory": "2Gi"})
    assert (worker["requests"], worker["limits"]) == ({"cpu": "3500m", "memory": "8Gi"}, {"memory": "8Gi"})
    assert env(pods(job)["head"])["OMP_NUM_THREADS"] == env(pods(job)["worker"])["OMP_NUM_THREADS"] == "3"
    spec_ = job["spec"]
    assert spec_["activeDeadlineSeconds"] == 60
    assert spec_["preRunningDeadlineSeconds"] == 30
    assert spec_["ttlSecondsAfterFinished"] == 10


def test_the_head_is_told_where_and_how_fast_and_nothing_else() -> None:
    told = env(pods(made(workers=2, checkpoint_every=7, mix_versions=True))["head"])
    ours = {name: value for name, value in told.items() if name.startswith("RCG_")}
    assert ours == {
        "RCG_EXECUTOR": "ray",
        "RCG_WORKERS": "2",
        "RCG_DEVICE": "cpu",
        "RCG_GPUS_PER_WORKER": "0",
        "RCG_THREADS": "2",
        "RCG_CHECKPOINT_EVERY": "7",
        "RCG_KEEP_CHECKPOINTS": "2",
        "RCG_MAX_FAILURES": "2",
        "RCG_MIX_VERSIONS": "True",
        "RCG_COMPILE": "False",
        "RCG_SHARD": "False",
        "RCG_RECOMPUTE": "False",
        "RCG_MLFLOW_URI": "off",
        "RCG_IMAGE": IMAGE,
        "RCG_RAYJOB": ORDER.name,
    }
    assert ours.keys() <= set(variables())
    assert not any(name.startswith("RCG_") for name in env(pods(made())["worker"]))
    assert made()["spec"]["entrypoint"] == f"rcg job {ORDER.spec_uri}"


@pytest.mark.parametrize(("device", "told"), [("auto", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")])
def test_gpus_are_asked_for_as_request_and_limit_and_auto_then_means_cuda(device: str, told: str) -> None:
    job = made(gpus_per_worker=1, device=device)
    resources = pods(job)["worker"]["spec"]["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in str(pods(job)["head"]["spec"]["containers"][0]["resources"])
    assert env(pods(job)["head"])["RCG_DEVICE"] == told


def test_sidecar_mode_has_no_submitter_pod() -> None:
    job = made(submission_mode="SidecarMode")
    assert job["spec"]["submissionMode"] == "SidecarMode"
    assert "submitterPodTemplate" not in job["spec"]
    assert "submitterConfig" not in job["spec"]


@pytest.mark.parametrize(("cpus", "threads"), [("4", 4), ("1.5", 1), ("500m", 1), ("3999m", 3)])
def test_threads_are_whole_cores(cpus: str, threads: int) -> None:
    assert n_threads(cpus) == threads


def test_a_template_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_template(path)
    path.write_text("kind: RayCluster")
    with pytest.raises(ConfigError, match="no RayJob"):
        read_template(path)
    template = yaml.safe_load(TEMPLATE.read_text())
    del template["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    with pytest.raises(ConfigError, match="lacks a field") as caught:
        build(template, ORDER, settings())
    assert "workerGroupSpecs" in str(caught.value)
