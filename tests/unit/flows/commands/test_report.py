"""`rcg report`: what a store and its decisions know becomes one page; what has left the store is said, not an error."""

import json
import re
import shutil
from pathlib import Path

import pytest

from components.errors import ConfigError, MissingError
from flows.commands.report import write_report
from flows.execution.project import Project
from flows.gate.decisions import Check, Contestant, Decision, Decisions, Entry, Interval
from flows.identity.artifact import SCHEMA
from flows.lineage.growth import read_growth
from flows.lineage.story import StoryVersion, read_story
from flows.pages.report import report_page
from flows.runs.ancestry import ancestry
from tests.support.folders import FolderArtifact, draw_bars, make_encode, make_generators
from tests.support.made_project import HOUR_MS, START_MS, MadeProject


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> MadeProject:
    return MadeProject(tmp_path_factory.mktemp("made"), versions=3)


@pytest.fixture
def made(template: MadeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeProject:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RCG_MLFLOW_URI", "off")
    return template.copy_to(tmp_path)


def _contestant(made: MadeProject, version: int) -> Contestant:
    runs = made.runs[version - 1]
    return Contestant(
        version=version, digest=runs["bundle"].digest, collection=runs["collect"].digest, metrics={"fd": 1.0}
    )


def decide(made: MadeProject, version: int, before: int | None, verdict: str, *, time_ms: int = START_MS) -> None:
    """A decision record and, for a promotion, its entry in the history."""
    decisions = Decisions(made.store, "rcg")
    number = decisions.next_number()
    failed = verdict == "refused"
    decision = Decision(
        schema_version=SCHEMA,
        number=number,
        model="rcg",
        question="q",
        challenger=_contestant(made, version),
        verdict=verdict,
        champion=None if before is None else _contestant(made, before),  # type: ignore[arg-type]
        checks=[Check(name="recall", passed=not failed, text=f"number {number} <is> enough")],
        differences={"all": Interval(value=-0.5, low=-0.9, high=-0.1, limit=0.05, n_real=399)} if before else {},
        thresholds={},
        protocol={},
        notes=[],
        who="retrain@cluster",
        time_ms=time_ms,
    )
    decisions.add(decision)
    if verdict == "promoted":
        _change(made, "promote", version, before, number)


def _change(made: MadeProject, action: str, version: int, before: int | None, decision: int) -> None:
    decisions = Decisions(made.store, "rcg")
    history, etag = decisions.history()
    entry = Entry(
        number=len(history.entries) + 1,
        action=action,
        version=version,
        before=before,
        decision=decision,  # type: ignore[arg-type]
        digest=made.runs[version - 1]["bundle"].digest,
        who="somebody",
        time_ms=START_MS,
        state="done",
        why=None,
    )
    decisions.replace([*history.entries, entry], etag)


def _page(made: MadeProject) -> str:
    story = read_story(made.project)
    return report_page(story, read_growth(made.store, story.versions[-1].stages))


def test_versions_decisions_and_champion(made: MadeProject) -> None:
    decide(made, 1, None, "promoted")
    decide(made, 2, 1, "promoted")
    decide(made, 3, 2, "refused")
    text = _page(made)
    assert "<h1>Version 2 is the champion</h1>" in text
    assert [int(n) for n in re.findall(r"<h3>version (\d)", text)] == [3, 2, 1], "newest first"
    assert re.findall(r'<li class="(promoted|refused)"><h3>Version (\d)', text) == [
        ("refused", "3"),
        ("promoted", "2"),
        ("promoted", "1"),
    ]
    assert "number 3 &lt;is&gt; enough" in text
    assert "1 (0.8 – 1.3)" in text, "the interval of version 2's distance"
    assert text.count('src="data:image/png;base64,') == 4
    assert "552 pictures" in text
    assert made.runs[1]["rdm"].digest in text, "lineage of the champion"


def test_rollback_moves_the_title_and_is_in_the_log(made: MadeProject) -> None:
    decide(made, 1, None, "promoted")
    decide(made, 2, 1, "promoted")
    _change(made, "rollback", 1, 2, 2)
    text = _page(made)
    assert "<h1>Version 1 is the champion</h1>" in text
    assert "rolled back from version 2" in text
    assert text.index("rolled back") < text.index('<li class="promoted"><h3>Version 2')


def test_clock_that_went_back_changes_no_order(made: MadeProject) -> None:
    decide(made, 1, None, "promoted", time_ms=START_MS)
    decide(made, 2, 1, "refused", time_ms=START_MS - 999 * HOUR_MS)
    decide(made, 3, 1, "refused", time_ms=START_MS - 99 * HOUR_MS)
    assert [v.number for v in read_story(made.project).versions] == [1, 2, 3]
    assert re.findall(r"<h3>Version (\d)", _page(made)) == ["3", "2", "1"]


def test_before_any_decision(made: MadeProject) -> None:
    text = _page(made)
    assert "Nothing was decided yet" in text
    assert f"<h1>Bundle {made.newest['bundle'].digest[:10]}</h1>" in text


def test_what_has_left_the_store_is_said(made: MadeProject, tmp_path: Path) -> None:
    decide(made, 1, None, "promoted")
    shutil.rmtree(tmp_path / ".rcg/store" / made.runs[0]["sample"].prefix)
    (tmp_path / ".rcg/store" / made.runs[0]["rdm"].keys["plots/loss.json"]).unlink()
    text = _page(made)
    assert "Its pictures have left the store." in text
    assert "The representation generator" in text, "the other version's curve"
    shutil.rmtree(tmp_path / ".rcg/store" / made.newest["collect"].prefix)
    assert 'id="collection"' not in _page(made)


def test_a_damaged_bundle_is_passed_over(made: MadeProject, tmp_path: Path) -> None:
    (tmp_path / ".rcg/store" / made.runs[1]["bundle"].keys["rcg.json"]).write_text("{ }")
    assert len(read_story(made.project).versions) == 2


def test_many_versions_and_decisions_stay_readable(made: MadeProject) -> None:
    for version in range(4, 16):
        made.runs.append(made.add(version))
    decide(made, 1, None, "promoted")
    for version in range(2, 16):
        decide(made, version, 1, "refused")
    text = _page(made)
    assert len(re.findall(r"<h3>version \d+", text)) == 13, "twelve and the champion"
    assert "2 earlier version(s)" in text
    assert "<summary>7 earlier</summary>" in text


def test_no_model_and_no_place_for_the_page(made: MadeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="file name"):
        write_report(made.project, tmp_path / "folder")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(made.project, tmp_path / "collection.lock" / "report.html")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(MissingError, match="no model to report on"):
        write_report(Project.here(), Path("report.html"))
    assert list(Path().iterdir()) == [], "nothing half-written"


def test_drift_and_clusters_come_from_the_cache(made: MadeProject, tmp_path: Path) -> None:
    images = draw_bars(60)[0]
    make_encode(tmp_path / "encode", images, ["train"] * 60)
    encode = FolderArtifact(tmp_path / "encode")
    files = {name: encode.read_bytes(name) for name in encode.names()}
    codec = _codec_files(tmp_path)
    chunk = next(name for name in files if name.startswith("shards/")).removeprefix("shards/").removesuffix(".arrow")
    listing = {"chunks": [{"name": chunk, "count": 60, "sha256": "a" * 64}]}
    data = json.dumps(listing).encode()
    parents = dict(made.newest)
    parents["collect"] = made.commit("collect", {"numerics": 3}, {}, {"collection.json": data, "base.json": data}, 1)
    parents["codec"] = made.commit("codec", {"numerics": 3}, parents, codec, 1)
    parents["encode"] = made.commit("encode", {"numerics": 3}, parents, files, 1)
    growth = read_growth(made.store, ancestry(made.store, parents["encode"]))
    assert growth is not None
    assert growth.counts == {chunk: 60}
    assert growth.drift == {}, "all of it is the base"
    assert sum(cluster.count for cluster in growth.clusters) == 60
    assert all(cluster.png.startswith(b"\x89PNG") for cluster in growth.clusters)


def _codec_files(root: Path) -> dict[str, bytes]:
    make_generators(root / "parts", "none")
    codec = FolderArtifact(root / "parts/codec")
    return {name: codec.read_bytes(name) for name in codec.names()}


def test_names_of_versions() -> None:
    version = StoryVersion(None, "a" * 64, (), {}, {}, 0, None, None, {}, 0)
    assert (version.name, version.short) == ("bundle aaaaaaaaaa", "aaaa")
