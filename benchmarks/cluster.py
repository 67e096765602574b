"""What a cluster costs a stage: `make bench-cluster`, on the cluster of the tests.

overhead     `rcg run encoder` under kuberay over a bare RayJob with the same body: the manifest that the driver made,
             posted again with nobody following it, on a copy of the store that lacks the encoder's run
first step   from `rcg repro` to the first training step that the run's events tell of
transfer     our store against raw boto3 with its default settings
"""

import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.table import Row, save, show
from components.store import open_store
from flows.identity.artifact import digest_of
from flows.runs.transfer import data_copy
from tests.support import cluster_rig
from tests.support.cluster_jobs import JOBS, Checkout
from tests.support.cluster_rig import kubectl, wait_until

STEPS, TURNS = 400, 4
_OVER = ("Complete", "Failed", "ValidationFailed")


def main() -> None:
    lacking = cluster_rig.missing()
    if lacking:
        sys.exit(lacking)
    with TemporaryDirectory() as folder:
        environment = cluster_rig.install(Path(folder) / "kubeconfig")
        os.environ.update({name: value for name, value in environment.items() if not name.startswith("RCG_")})
        pairs = [_pair(Path(folder) / str(turn), environment) for turn in range(TURNS)]
        rows = _job_rows(pairs)
    from benchmarks.s3_transfer import transfer_rows

    rows += transfer_rows()
    sys.stdout.write(f"{show(rows)}\n\nsaved to {save(rows, 'cluster')}\n")


def _pair(folder: Path, environment: dict[str, str]) -> dict[str, float]:
    """Seconds of the same training, driven and bare."""
    place = Checkout(folder, environment, steps=STEPS)
    place.prepare()
    start = time.monotonic()
    driver = place.start("run", "encoder")
    place.until_step(1, driver)
    first_step = time.monotonic() - start
    done = driver.wait()
    driven = time.monotonic() - start
    if done.code:
        sys.exit(done.text)
    seconds = {"driven": driven, "first step": first_step, "bare": _bare(place)}
    place.clean()
    return seconds


def _bare(place: Checkout) -> float:
    """The driver's own RayJob once more, for a store without the encoder's run."""
    [job] = place.jobs()
    uri = f"{place.store_uri}-bare"
    copy = open_store(uri)
    [prefix] = {"/".join(info.key.split("/")[:3]) for info in place.store.list("runs/collect")}
    data_copy(place.store, copy, {prefix: digest_of(place.store.get(f"{prefix}/manifest.json"))})
    key = f"{place.run_prefix('encoder')}/spec.json"
    copy.put(key, place.store.get(key))
    driven = str(job["metadata"]["name"])
    name = f"{driven.rpartition('-a')[0]}-bare"
    manifest: dict[str, Any] = json.loads(json.dumps(job).replace(place.store_uri, uri).replace(driven, name))
    manifest["metadata"] = {key: manifest["metadata"][key] for key in ("labels", "annotations")} | {"name": name}
    manifest.pop("status")
    start = time.monotonic()
    kubectl("-n", JOBS, "create", "-f", "-", stdin=json.dumps(manifest))

    def over() -> str:
        got = kubectl("-n", JOBS, "get", "rayjob", name, "-o", "jsonpath={.status.jobDeploymentStatus}")
        return got if got in _OVER else ""

    status = wait_until(over, name, 600)
    seconds = time.monotonic() - start
    kubectl("-n", JOBS, "delete", "rayjob", name, "--wait=false")
    if status != "Complete":
        sys.exit(f"the bare RayJob ended as {status}")
    return seconds


def _job_rows(pairs: list[dict[str, float]]) -> list[Row]:
    raw = {"pairs": pairs}
    overhead = median(pair["driven"] / pair["bare"] for pair in pairs)
    first = median(pair["first step"] for pair in pairs)
    where = f"encoder, {STEPS} steps, 1 worker"
    return [
        Row("a driven stage over a bare RayJob", where, overhead, "", 1.1, raw),
        Row("from the command to the first training step", where, first, "s", None, raw),
    ]


if __name__ == "__main__":
    main()
