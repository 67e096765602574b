"""Whatever text reaches a page, from foreign bundles, decisions and files, stays text: no element and no attribute."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flows.gate.decisions import Check, Contestant, Decision, Interval
from flows.lineage.growth import Cluster, Growth
from flows.lineage.story import Story, StoryVersion
from flows.lineage.trace import Lineage
from flows.pages.lineage import lineage_page
from flows.pages.report import report_page
from flows.runs.ancestry import Facts
from tests.support.hostile import HOSTILE, assert_harmless


def _facts(name: str) -> Facts:
    return Facts(
        stage=name,
        content=HOSTILE,
        fingerprint=HOSTILE,
        params={HOSTILE: HOSTILE, "seed": 3},
        inputs={HOSTILE: HOSTILE},
        code=HOSTILE,
        attempt=1,
        world_size=2,
        device=HOSTILE,
        versions={HOSTILE: HOSTILE},
        host=HOSTILE,
        context={"git_commit": HOSTILE, "image": HOSTILE, "rayjob": HOSTILE},
        started_ms=1,
        ended_ms=2,
        adopted_from=HOSTILE,
        adopted_because=HOSTILE,
    )


STAGES: Mapping[str, Facts] = {HOSTILE: _facts(HOSTILE), "bundle": _facts("bundle")}


def test_lineage() -> None:
    picture: dict[str, Any] = {HOSTILE: HOSTILE, "sampling": {HOSTILE: HOSTILE}, "platform": {HOSTILE: HOSTILE}}
    chunks = {"chunks": [{"name": HOSTILE, "count": 3}]}
    found = Lineage(HOSTILE, STAGES, HOSTILE, picture, chunks, metrics={HOSTILE: 1.0}, erased=(HOSTILE,))
    assert_harmless(lineage_page(found))


def test_report() -> None:
    metrics = {"fd": 2.0, "fd_floor": 1.0, "precision": 0.5, "recall": 0.5, "memorization_share": 0.1, HOSTILE: 1.0}
    curves = {"pixels": [(1.0, 2.0), (2.0, 1.0)]}
    versions = [StoryVersion(n, HOSTILE, (HOSTILE,), STAGES, metrics, 9, b"png", None, curves, 0) for n in (None, 2)]
    contestant = Contestant(version=2, digest=HOSTILE, collection=HOSTILE, metrics=metrics)
    decision = Decision(
        schema_version=1,
        number=1,
        model=HOSTILE,
        verdict="refused",
        question=HOSTILE,
        challenger=contestant,
        champion=contestant,
        checks=[Check(name=HOSTILE, passed=False, text=HOSTILE)],
        differences={HOSTILE: Interval(value=0.1, low=0.0, high=0.2, limit=0.1, n_real=9)},
        thresholds={},
        protocol={},
        notes=[HOSTILE],
        who=HOSTILE,
        time_ms=0,
    )
    story = Story(HOSTILE, versions, [decision], [], [HOSTILE])
    growth = Growth({HOSTILE: 3}, [], {HOSTILE: 1.0}, [Cluster(3, b"png")])
    assert_harmless(report_page(story, growth))
    assert "Fréchet distance by version" in report_page(story, growth)
    unseen = [replace(version, metrics=metrics | {"judge_blind": 1.0}) for version in versions]
    assert "Fréchet distance by version" not in report_page(replace(story, versions=unseen), growth)
