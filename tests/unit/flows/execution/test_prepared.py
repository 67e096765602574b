"""`rcg job` in a pod: what it records, and what it leaves for the driver when it fails."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.errors import ConfigError, TamperedError
from components.store import LocalStore
from components.store.base import Prefix
from flows.execution.prepared import run_spec
from flows.execution.project import Project
from flows.identity.artifact import SCHEMA, digest_of
from flows.identity.fingerprint import LOCK, Identity
from flows.runs.rayjobs import JobRecord, note_job, read_failure
from flows.runs.records import InputSpec, Spec, load_run
from tests.support import rayjobs
from tests.support.made_runs import a_spec, make_run

JOB = "rcg-parts-0123456789-abcd-a1"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """As in a pod: a folder of its own, settings from the environment."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"RAYJOB": JOB, "EXECUTOR": "inline", "DEVICE": "cpu", "MLFLOW_URI": "off"}.items():
        monkeypatch.setenv(f"RCG_{name}", value)
    (tmp_path / "source").mkdir()
    return LocalStore(tmp_path / "store")


def put(store: LocalStore, spec: Spec) -> tuple[str, Prefix]:
    """The URI of the spec and the folder of its run."""
    spec = spec.model_copy(update={"source": str(store.root.parent / "source")})
    store.put(f"{spec.prefix}/spec.json", spec.to_json())
    return f"{store.uri}/{spec.prefix}/spec.json", Prefix(store, spec.prefix)


def test_the_run_says_which_job_made_it(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, folder = put(store, rayjobs.spec())
    job = JobRecord(
        schema_version=SCHEMA,
        name=JOB,
        uid="u-1",
        namespace="rcg-jobs",
        image=rayjobs.IMAGE,
        context={"git_commit": "abc"},
    )
    note_job(folder, job)
    note_job(folder, job.model_copy(update={"uid": "another driver's view"}))  # the first one stays
    monkeypatch.setenv("RAY_CLUSTER_NAME", "cluster-1")
    assert run_spec(uri, Project.here()).how == "made"
    assert load_run(store, rayjobs.spec().prefix).record.context == {
        "git_commit": "abc",
        "rayjob": JOB,
        "rayjob_uid": "u-1",
        "namespace": "rcg-jobs",
        "image": rayjobs.IMAGE,
        "ray_cluster": "cluster-1",
        "threads": f"{torch.get_num_threads()}",
    }
    assert read_failure(folder, JOB) is None


def test_a_job_that_its_driver_had_no_time_to_note(store: LocalStore) -> None:
    uri, _ = put(store, rayjobs.spec())
    run_spec(uri, Project.here())
    assert load_run(store, rayjobs.spec().prefix).record.context == {
        "rayjob": JOB,
        "threads": f"{torch.get_num_threads()}",
    }


def test_other_code_is_refused_and_the_driver_told(store: LocalStore) -> None:
    right = rayjobs.spec()
    identity: Identity = right.identity.model_copy(update={"modules": {"tests.support.tiny_parts": "0" * 64}})
    uri, folder = put(store, right.model_copy(update={"identity": identity, "fingerprint": identity.fingerprint}))
    with pytest.raises(ConfigError, match="other code for parts"):
        run_spec(uri, Project.here())
    failure = read_failure(folder, JOB)
    assert failure.failure_class == "config"
    assert "make image" in failure.message
    assert [info.key for info in folder.list("attempts")] == []


def test_wrong_params_never_take_the_lease(store: LocalStore) -> None:
    uri, folder = put(store, rayjobs.spec(rows="many"))
    with pytest.raises(ConfigError):
        run_spec(uri, Project.here())
    assert read_failure(folder, JOB).failure_class == "config"
    assert folder.head("lease.json") is None


def test_a_plain_exception_is_told_with_its_place(store: LocalStore) -> None:
    uri, folder = put(
        store, rayjobs.spec().model_copy(update={"collection_lock": None})
    )  # it asserts that there is one
    with pytest.raises(AssertionError):
        run_spec(uri, Project.here())
    failure = read_failure(folder, JOB)
    assert failure.failure_class == "code"
    assert "AssertionError in run, " in failure.message
    assert "tiny_parts.py:" in failure.message


def test_by_hand_there_is_no_job_to_tell(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RCG_RAYJOB")
    uri, folder = put(store, rayjobs.spec(rows="many"))
    with pytest.raises(ConfigError):
        run_spec(uri, Project.here())
    assert [info.key for info in folder.list("jobs")] == []
    for wrong in ("spec.json", f"{store.uri}/runs/parts/{'0' * 64}"):
        with pytest.raises(ConfigError, match=r"not the URI of a spec\.json"):
            run_spec(wrong, Project.here())


FORGED: dict[str, Callable[[Spec], Spec]] = {
    "params": lambda s: s.model_copy(update={"identity": s.identity.model_copy(update={"params": {"rows": 9}})}),
    "lock": lambda s: s.model_copy(update={"collection_lock": "other pictures"}),
    "no lock": lambda s: s.model_copy(update={"collection_lock": None}),
    "parent": lambda s: s.model_copy(
        update={"inputs": {"encode": InputSpec(prefix=f"runs/encode/{'0' * 64}", digest="f" * 64)}}
    ),
    "no parent": lambda s: s.model_copy(update={"inputs": {}}),
    "one parent more": lambda s: s.model_copy(
        update={"inputs": {**s.inputs, "rdm": InputSpec(prefix=f"runs/rdm/{'0' * 64}", digest="f" * 64)}}
    ),
    "file of a parent": lambda s: s.model_copy(update={"inputs": {**s.inputs, "codec": s.inputs["encode"]}}),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_spec_that_is_not_what_its_name_says_does_nothing(store: LocalStore, what: str) -> None:
    encode, codec = (make_run(store, a_spec(stage), {"base.json": stage.encode()}) for stage in ("encode", "codec"))
    honest = rayjobs.spec()
    inputs = {"encode": encode.digest, "codec/base.json": digest_of(b"codec"), LOCK: digest_of(b"pictures")}
    identity = honest.identity.model_copy(update={"inputs": inputs})
    parents = {run.stage: InputSpec(prefix=run.prefix, digest=run.digest) for run in (encode, codec)}
    changes = {"identity": identity, "fingerprint": identity.fingerprint, "collection_lock": "pictures"}
    honest = honest.model_copy(update={**changes, "inputs": parents})
    uri, folder = put(store, honest)
    folder.put("spec.json", FORGED[what](honest).model_copy(update={"source": str(store.root)}).to_json())
    with pytest.raises(TamperedError, match=r"is not the work that its name stands for"):
        run_spec(uri, Project.here())
    assert read_failure(folder, JOB).failure_class == "data"
    assert folder.head("lease.json") is None
    put(store, honest)
    assert run_spec(uri, Project.here()).how == "made"


def test_a_spec_at_the_place_of_another_does_nothing(store: LocalStore) -> None:
    uri, folder = put(store, rayjobs.spec())
    folder.put("spec.json", rayjobs.spec(rows=2).to_json())
    with pytest.raises(TamperedError, match="is not the work"):
        run_spec(uri, Project.here())
    assert not list(Prefix(store, rayjobs.spec(rows=2).prefix).list(""))
