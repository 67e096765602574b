"""What a run's folder says of the RayJobs that worked on it: jobs/<name>.json, and why one failed beside it."""

import contextlib

from components.errors import ConflictError, FailureClass, RetryableError
from components.store.base import Store
from flows.identity.artifact import SCHEMA, Record
from flows.runs.records import Failure, read_record


class JobRecord(Record):
    """jobs/<name>.json, written by a driver: pods know neither the uid of their RayJob nor git."""

    schema_version: int
    name: str
    uid: str
    namespace: str
    image: str
    context: dict[str, str]
    """Of the driver: git commit."""


def note_job(run: Store, job: JobRecord) -> None:
    """Keep the record, unless another driver did."""
    with contextlib.suppress(ConflictError):
        run.put(f"jobs/{job.name}.json", job.to_json(), if_absent=True)


def job_context(run: Store, name: str) -> dict[str, str]:
    """What run.json says of the RayJob."""
    job = read_record(JobRecord, run, f"jobs/{name}.json")
    if job is None:  # the driver died between creating the job and noting it
        return {"rayjob": name}
    own = {"rayjob": job.name, "rayjob_uid": job.uid, "namespace": job.namespace, "image": job.image}
    return job.context | own


def note_failure(run: Store, name: str, failure_class: FailureClass, message: str) -> None:
    """Say why the job's command failed, whatever attempt it was at; a store that fails is not told."""
    failure = Failure(schema_version=SCHEMA, failure_class=failure_class, message=message)
    with contextlib.suppress(RetryableError):
        run.put(f"jobs/{name}.failure.json", failure.to_json())


def read_failure(run: Store, name: str) -> Failure | None:
    return read_record(Failure, run, f"jobs/{name}.failure.json")


def noted_jobs(run: Store) -> set[str]:
    """Names of all RayJobs that worked on the run or failed to; those that the cluster has deleted too."""
    return {info.key.split("/")[1].partition(".")[0] for info in run.list("jobs")}
