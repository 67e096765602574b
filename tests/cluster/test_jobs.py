"""RayJobs that fail, that never start, and that lose what they run on. No server is stopped here."""

import signal
import time
from collections.abc import Callable

import pytest

from tests.support import cluster_rig
from tests.support.cluster_jobs import JOBS, SMALL, Checkout
from tests.support.cluster_rig import kubectl, wait_until

pytestmark = pytest.mark.timeout(1500)
CHECKPOINT_EVERY = 100
TRAINING = SMALL | {"RCG_WORKERS": "2", "RCG_CHECKPOINT_EVERY": str(CHECKPOINT_EVERY)}


def keys(place: Checkout) -> list[str]:
    return [info.key for info in place.store.list(place.run_prefix("encoder"))]


def test_an_entrypoint_that_fails_is_told_once(checkout: Callable[..., Checkout], collected: Checkout) -> None:
    place = checkout(settings=SMALL)
    place.prepare_as(collected)
    run = place.read("collect", "run.json")
    key, data = run["keys"]["base.json"], place.store.get(run["keys"]["base.json"])
    place.store.put(key, data[:-2] + b" " + data[-1:])  # as long as before, so that only its digest tells
    done = place.rcg("run", "encoder")
    assert done.code == 3, done.text
    assert "base.json of runs/collect" in done.text
    assert "does not match its digest" in done.text
    [job] = place.jobs()
    assert place.read("encoder", f"jobs/{job['metadata']['name']}.failure.json")["failure_class"] == "data"
    assert place.read("encoder", "attempts/1.failure.json")["failure_class"] == "data"
    assert not any(key.endswith("manifest.json") for key in keys(place))


def test_jobs_that_never_start(checkout: Callable[..., Checkout], collected: Checkout) -> None:
    """Four drivers at once: no room for a worker, no such image, an image without Ray, canceled while it waits."""
    places = [checkout() for _ in range(4)]
    for place in places:
        place.prepare_as(collected)
    cluster_rig.tag(cluster_rig.POSTGRES, "localhost/rcg:without-ray")
    start = time.monotonic()
    crashing = places[3].start("run", "encoder", RCG_IMAGE="localhost/rcg:without-ray", **SMALL)
    full = places[0].start("run", "encoder", RCG_WORKER_CPUS="3", RCG_PRE_RUNNING_DEADLINE_S="40")
    absent = places[1].start("run", "encoder", RCG_IMAGE="localhost/rcg:absent")
    waiting = places[2].start("run", "encoder", RCG_HEAD_CPUS="3")
    waiting.until("Insufficient cpu")
    told = places[2].rcg("cancel", "encoder")
    assert "encoder: deleted RayJob rcg-encoder-" in told.text
    canceled, unpulled, no_room = waiting.wait(60), absent.wait(90), full.wait(120)
    assert canceled.code == 75, canceled.text
    assert "was deleted" in canceled.text
    assert unpulled.code == 2, unpulled.text
    assert "the image cannot be pulled: localhost/rcg:absent" in unpulled.text
    crashed = crashing.wait(120)
    assert time.monotonic() - start < 120, "two minutes"
    assert crashed.code == 2, crashed.text
    assert "a container ends again and again, so Ray never starts: head rcg-encoder-" in crashed.text
    assert "ray: command not found" in crashed.text, "its last lines"
    assert no_room.code == 75, no_room.text
    assert "the cluster had no room" in no_room.text
    assert "Insufficient cpu" in no_room.text
    assert [len(place.jobs()) for place in places] == [1, 0, 0, 0]


def test_after_a_lost_head_and_a_killed_command_the_next_attempt_goes_on_from_the_checkpoint(
    checkout: Callable[..., Checkout], collected: Checkout
) -> None:
    """The operator makes a new head and submits again, within one RayJob; a command that dies ends its RayJob.

    The old workers train on until the new attempt takes the lease, so this training is long; it is not let finish.
    """
    place = checkout(settings=TRAINING, steps=100_000)
    place.prepare_as(collected)
    driver = place.start("run", "encoder")
    wait_until(lambda: place.checkpoint() >= CHECKPOINT_EVERY, "a checkpoint", 400)
    kubectl("-n", JOBS, "delete", "pod", place.pods("head")[0], "--wait=false")
    wait_until(lambda: place.checkpoint(attempt=2), "a checkpoint of the second attempt", 400)
    assert place.checkpoint(attempt=2, oldest=True) > place.checkpoint(attempt=1)
    kubectl("-n", JOBS, "exec", place.pods("head")[0], "--", "bash", "-c", KILL_COMMAND)
    wait_until(lambda: place.checkpoint(attempt=3), "a checkpoint of the third attempt", 400)
    assert place.checkpoint(attempt=3, oldest=True) > place.checkpoint(attempt=2)
    assert [job["metadata"]["name"].rpartition("-")[2] for job in place.jobs()] == ["a1", "a3"]
    assert "was lost, the next attempt goes on" in driver.text
    driver.send(signal.SIGTERM)
    done = driver.wait(60)
    assert done.code == 128 + signal.SIGTERM
    assert "To end it: rcg cancel encoder" in done.text
    [canceled] = place.rcg("cancel").text.splitlines()
    assert canceled.startswith(f"encoder: deleted RayJob {place.jobs()[-1]['metadata']['name'][:-2]}")


KILL_COMMAND = """
for process in /proc/[0-9]*; do
    if tr '\\0' ' ' < $process/cmdline | grep -q "bin/rcg [j]ob"; then kill -9 ${process#/proc/}; fi
done
"""
