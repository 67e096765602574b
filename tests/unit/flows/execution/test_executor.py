from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import ArtifactError, ConfigError, DivergedError, MissingError
from components.store import LocalStore
from flows.execution.work import Doing, failure_class, work
from flows.executors import open_executor
from flows.executors.base import RankResult, check_metrics, merge, pick_device
from flows.identity.artifact import FileEntry
from flows.identity.fingerprint import Identity
from flows.runs.events import read_events
from flows.runs.records import Spec
from flows.settings import WorkerSettings

ENTRY = FileEntry(size=1, sha256="a" * 64)


def spec(**params: object) -> Spec:
    values = {"numerics": 1, "n_parts": 1, "rows": 1} | params
    identity = Identity(schema_version=1, stage="parts", params=values, inputs={}, modules={})
    return Spec(
        schema_version=1,
        fingerprint=identity.fingerprint,
        identity=identity,
        inputs={},
        source="demo",
        collection_lock="",
        module="tests.support.tiny_parts",
    )


@pytest.mark.parametrize(
    ("params", "settings", "words"),
    [
        ({"rows": "many"}, WorkerSettings(), r"parts\.rows"),
        ({"colour": 1}, WorkerSettings(), r"parts\.colour"),
        ({}, WorkerSettings(workers=2), "one worker"),
        ({}, WorkerSettings(device="cuda"), "no GPU here"),
    ],
)
def test_what_is_wrong_from_the_start_starts_nothing(
    tmp_path: Path, params: dict[str, object], settings: WorkerSettings, words: str
) -> None:
    if settings.device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    store = LocalStore(tmp_path / "store")
    with pytest.raises(ConfigError, match=words) as caught:
        work(spec(**params), Doing(store=store, executor=open_executor("inline"), settings=settings))
    assert caught.value.exit_code == 2
    assert not store.root.exists()


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto") == torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_metrics_have_to_be_finite(value: float) -> None:
    with pytest.raises(DivergedError, match="fd"):
        check_metrics("evaluate", {"fd": value})


@pytest.mark.parametrize("value", ["0.5", None, True, [1.0]])
def test_metrics_have_to_be_numbers(value: Any) -> None:
    with pytest.raises(ArtifactError, match="fd"):
        check_metrics("evaluate", {"fd": value})


def test_what_a_stage_uses_is_told_and_kept_out_of_its_results(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    asked = spec(n_parts=3).model_copy(update={"source": str(tmp_path)})
    outcome = work(asked, Doing(store=store, executor=open_executor("inline"), settings=WorkerSettings()))
    events = list(read_events(store, asked.prefix))
    assert [event.metrics["rows"] for event in events] == [1, 1, 1]
    first, *others = ({name for name in event.metrics if name.startswith("system/")} for event in events)
    assert first == {"system/cpu_percent", "system/memory_mb"}
    assert others == [set(), set()], "once per interval"
    assert events[0].metrics["system/cpu_percent"] > 0
    assert 10 < events[0].metrics["system/memory_mb"] < 100_000
    assert b"system/" not in store.get(outcome.run.keys["metrics.json"])


def test_a_stage_that_reports_nothing_still_tells_what_it_used(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    asked = spec(n_parts=0).model_copy(update={"source": str(tmp_path)})
    work(asked, Doing(store=store, executor=open_executor("inline"), settings=WorkerSettings()))
    (event,) = read_events(store, asked.prefix)
    assert event.step == 0
    assert event.metrics.keys() == {"system/cpu_percent", "system/memory_mb"}


@pytest.mark.parametrize("torn", [True, False])
def test_a_memoised_part_that_was_torn_or_lost_is_made_again(tmp_path: Path, torn: bool) -> None:
    store = LocalStore(tmp_path / "store")
    asked = spec(n_parts=3).model_copy(update={"source": str(tmp_path)})
    doing = Doing(store=store, executor=open_executor("inline"), settings=WorkerSettings())
    run = work(asked, doing).run
    whole = store.get(run.keys["parts/1.bin"])
    store.delete(run.keys["parts/1.bin"])
    if torn:
        store.put(run.keys["parts/1.bin"], whole[:-1])
    again = work(asked, doing)
    assert (again.how, again.run.digest) == ("made", run.digest)
    assert store.get(run.keys["parts/1.bin"]) == whole
    assert (tmp_path / "made").read_text().split() == ["0", "1", "2", "1"]
    store.delete(run.keys["index.json"])
    with pytest.raises(MissingError, match=r"index\.json"):
        work(asked, doing)


def result(rank: int, **keys: str) -> RankResult:
    return RankResult(rank, "cpu", dict.fromkeys(keys, ENTRY), keys, 1)


def test_ranks_may_not_write_the_same_file() -> None:
    files, keys = merge([result(0, a="out/1/a"), result(1, b="out/1/b")])
    assert sorted(files) == ["a", "b"]
    assert keys == {"a": "out/1/a", "b": "out/1/b"}
    with pytest.raises(ArtifactError, match="two ranks"):
        merge([result(0, a="out/1/a"), result(1, a="out/1/a")])
    with pytest.raises(ArtifactError, match="two ranks"):
        merge([result(0, a="memo/x/1"), result(1, a="memo/x/2")])
    assert merge([result(0, a="memo/x/1"), result(1, a="memo/x/1")])[1] == {"a": "memo/x/1"}


def test_failure_classes() -> None:
    assert failure_class(ConfigError("x")) == "config"
    assert failure_class(ArtifactError("x")) == "data"
    assert failure_class(DivergedError("x")) == "code"
    assert failure_class(OSError("x")) == "transient"
    assert failure_class(KeyError("x")) == "code"
