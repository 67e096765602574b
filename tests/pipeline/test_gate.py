"""Promotion and rollback against a real registry and store: who wins, who is refused, and what a kill leaves."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from components.bundle.integrity import bundle_digest
from components.bundle.system import SystemSampling
from components.errors import ArtifactError, ConflictError, MissingError, RcgError, RetryableError, TamperedError
from components.training.checkpoint import lone_worker
from flows.commands.history import history_lines
from flows.execution.project import Project
from flows.gate import promotion
from flows.gate.champion import deciding, open_aliases
from flows.gate.decisions import Decisions
from flows.gate.drawing import draw_images
from flows.gate.reference import Reference
from flows.gate.rollback import rollback
from flows.gate.verdict import checks
from flows.lineage.story import read_story
from flows.registry import CHALLENGER, CHAMPION, PREVIOUS, Aliases, register
from flows.registry.references import DIGEST
from flows.runs.records import CommittedRun
from flows.settings import Settings
from tests.support.bundles import SAMPLING, make_bundle
from tests.support.folders import FolderArtifact, draw_bars, make_collect
from tests.support.made_runs import a_spec, make_run
from tests.support.mlflow_database import URI, make_database

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*type hint:UserWarning")
ROOT = Path(__file__).parents[2]
SPLITS = ["train"] * 60 + ["val"] * 10 + ["test"] * 40
GATE = {
    "seed": 1,
    "n": 12,
    "n_bootstrap": 20,
    "level": 0.95,
    "margin": 1e6,
    "margin_known": None,
    "min_precision": 0.0,
    "min_recall": 0.0,
    "max_memorization": 1.0,
}


DRAWN: dict[tuple[str, int, int, str], np.ndarray] = {}


class World:
    """A project with a store, a registry, a collection and bundles of random weights."""

    def __init__(self, root: Path) -> None:
        self.root = root
        make_database(root)
        make_collect(root / "collect", root / "pictures", SPLITS)
        (root / "params.yaml").write_text((ROOT / "presets/smoke.yaml").read_text())
        self.judge(80)
        self.gate()
        artifact = FolderArtifact(root / "collect")
        files = {name: artifact.read_bytes(name) for name in artifact.names()}
        self.collect = make_run(self.project.store, a_spec("collect"), files)

    @property
    def project(self) -> Project:
        settings = Settings(
            store=str(self.root / "store"),
            source=str(self.root / "pictures"),
            mlflow_uri=URI,
            device="cpu",
        )
        return Project(self.root, settings)

    @property
    def aliases(self) -> Aliases:
        return open_aliases(self.project)[1]

    @property
    def decisions(self) -> Decisions:
        return Decisions(self.project.store, "rcg")

    def gate(self, **changes: object) -> None:
        path = self.root / "params.yaml"
        data = yaml.safe_load(path.read_text())
        data["gate"] = GATE | changes
        path.write_text(yaml.safe_dump(data))

    def judge(self, steps: int) -> None:
        """How long the judge learns."""
        path = self.root / "params.yaml"
        data = yaml.safe_load(path.read_text())
        data["evaluate"]["train"] = _learning(data["evaluate"]["train"], steps)
        path.write_text(yaml.safe_dump(data))

    def register(self, seed: int) -> int:
        """Another bundle as the next version and challenger."""
        bundle = make_bundle(self.root / f"bundle{seed}", sampling=_sampling(seed))
        lineage = bundle.read_json("lineage.json")
        lineage["parents"]["collect"]["content"] = self.collect.digest
        bundle.write_json("lineage.json", lineage)
        tracking = self.project.tracking
        assert tracking is not None
        told = register(tracking, self.project.store, _commit(self, bundle), name="rcg", tags={})
        return int(told.split("/")[2].split(" ")[0])

    def promote(self, number: int | None = None) -> promotion.Outcome:
        return promotion.promote(self.project, number=number, dry_run=False)

    def where(self) -> tuple[int | None, int | None]:
        """Versions of champion and previous-champion."""
        found = [self.aliases.of(alias) for alias in (CHAMPION, PREVIOUS)]
        champion, previous = (None if version is None else version.number for version in found)
        return champion, previous


def _learning(train: dict[str, Any], steps: int) -> dict[str, Any]:
    """Steps in which the judge of the smoke preset, who is blind, learns to see."""
    return train | {"steps": steps, "optimizer": train["optimizer"] | {"lr": 3e-3}}


def _sampling(seed: int) -> SystemSampling:
    return SAMPLING.model_copy(update={"seed": seed})


def _commit(world: World, bundle: FolderArtifact) -> CommittedRun:
    files = {name: bundle.read_bytes(name) for name in bundle.names()}
    return make_run(world.project.store, a_spec("bundle", inputs={"evaluate": bundle.digest}), files)


def draw_images_once(folder: Path, n: int, seed: int, device: str) -> np.ndarray:
    """The pictures of a bundle, whose process takes four CPU seconds, are drawn for the first test that asks."""
    digest = bundle_digest(folder)
    if (digest, n, seed, device) not in DRAWN:
        DRAWN[digest, n, seed, device] = draw_images(folder, n, seed, device)
    return DRAWN[digest, n, seed, device]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for module in ("promotion", "rollback"):
        monkeypatch.setattr(f"flows.gate.{module}.draw_images", draw_images_once)
    monkeypatch.chdir(tmp_path)
    for name, value in (("STORE", "store"), ("SOURCE", "pictures"), ("MLFLOW_URI", URI)):
        monkeypatch.setenv(f"RCG_{name}", value)
    return World(tmp_path)


def test_a_life_first_second_refused_held_rolled_back_twice(world: World) -> None:
    with pytest.raises(MissingError, match="no challenger"):
        world.promote()
    world.register(1)
    assert world.promote().result == "promoted"
    assert world.where() == (1, None)
    assert world.promote().result == "champion"
    world.register(2)
    begun: list[str] = []
    dry = promotion.promote(world.project, number=None, dry_run=True, begin=begun.append)
    assert len(begun) == promotion.N_PHASES
    assert (dry.result, world.where()) == ("promoted", (1, None))
    assert len(world.decisions.all()) == 1
    assert world.promote().result == "promoted"
    assert world.where() == (2, 1)
    world.register(3)
    world.gate(min_precision=1.0, min_recall=1.0)
    refused = world.promote()
    assert refused.result == "refused"
    assert world.where() == (2, 1)
    world.gate()
    world.aliases.tag(3, {"rcg.hold": "true"})
    assert world.promote().result == "held"
    world.aliases.tag(3, {"rcg.hold": "false"})
    assert world.promote().result == "promoted"
    assert world.where() == (3, 2)
    assert rollback(world.project, None)[0].number == 2
    assert world.where() == (2, 1)
    assert rollback(world.project, None)[0].number == 1
    assert world.where() == (1, None)
    with pytest.raises(MissingError, match="no earlier champion"):
        rollback(world.project, None)
    assert world.promote().result == "held", "what was rolled back does not come back by itself"
    assert world.promote(3).result == "promoted"
    assert "rolled back" not in world.aliases.version(3).tags["rcg.rolled_back"]
    _check_records(world)
    _check_story(world)


def _check_story(world: World) -> None:
    """What the page tells of the registry."""
    story = read_story(world.project)
    assert story.notes == []
    assert [version.number for version in story.versions] == [1, 2, 3]
    assert story.versions[2].aliases == ("challenger", "champion")
    assert story.versions[0].aliases == ("previous-champion",)


def _check_records(world: World) -> None:
    made = world.decisions.all()
    assert [(d.challenger.version, d.verdict) for d in made] == [
        (1, "promoted"),
        (2, "promoted"),
        (3, "refused"),
        (3, "promoted"),
        (3, "promoted"),
    ]
    assert made[0].champion is None
    assert made[1].champion is not None
    assert made[1].differences["all"].n_real == SPLITS.count("test")
    assert made[1].protocol["collection"] == world.collect.digest
    tags = world.aliases.version(3).tags
    assert tags["rcg.gate.verdict"] == "promoted"
    assert tags["rcg.gate.decision"] == "5"
    told = history_lines(world.decisions)
    assert len(told) == 7
    assert "version 3 refused: " in told[2]
    assert "version 2 is champion again" in told[4]
    assert "version 1 is champion again" in told[5]


class Failing(Aliases):
    """An MLflow that goes away before change number `n` of the registry."""

    def __init__(self, world: World, n: int) -> None:
        tracking = world.project.tracking
        assert tracking is not None
        super().__init__(tracking, "rcg")
        self.left = n

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise RetryableError("MLflow does not answer")

    def point(self, alias: str, number: int | None) -> None:
        self._step()
        super().point(alias, number)

    def tag(self, number: int, tags: object) -> None:
        self._step()
        super().tag(number, tags)  # type: ignore[arg-type]


def test_a_registry_that_goes_away_at_any_moment_is_caught_up_by_the_next_command(world: World) -> None:
    one, two = world.register(1), world.register(2)
    with deciding(world.project.store, world.aliases) as champion:
        champion.change("promote", world.aliases.version(one), None, 1)
    interrupted = 0
    for n in range(10):
        before = world.aliases.version(one)
        failing = Failing(world, n)
        try:
            with deciding(world.project.store, failing) as champion:
                champion.change("promote", failing.version(two), before, 2)
        except RetryableError:
            interrupted += 1
            assert world.decisions.history()[0].pending is not None
            with deciding(world.project.store, world.aliases):
                assert world.where() == (two, one)
        assert world.decisions.history()[0].pending is None
        assert world.where() == (two, one)
        with deciding(world.project.store, world.aliases) as champion:
            champion.change("rollback", before, world.aliases.version(two), 2)
        assert world.where() == (one, None)
        if failing.left > 0:
            break
    assert interrupted >= 3


def test_an_alias_moved_by_hand_is_never_overwritten(world: World) -> None:
    one, two, three = (world.register(seed) for seed in (1, 2, 3))
    versions = [world.aliases.version(number) for number in (one, two, three)]
    with deciding(world.project.store, world.aliases) as champion:
        champion.change("promote", versions[0], None, 1)
        world.aliases.point(CHAMPION, three)
        with pytest.raises(ConflictError, match="changed while"):
            champion.change("promote", versions[1], versions[0], 2)
    with pytest.raises(RetryableError), deciding(world.project.store, failing := Failing(world, 0)) as champion:
        champion.change("promote", versions[1], versions[2], 2)
    assert failing.left < 0
    world.aliases.point(CHAMPION, one)
    with deciding(world.project.store, world.aliases) as champion:
        entry = champion.decisions.history()[0].entries[-1]
        assert (entry.state, entry.version) == ("void", two)
    assert world.where()[0] == one


def test_a_judge_that_takes_noise_for_pictures_promotes_nothing(world: World) -> None:
    world.judge(3)
    world.register(1)
    refused = world.promote()
    assert (refused.result, world.where()) == ("refused", (None, None))
    for words in ("FAIL the judge is blind", "of noise pass for real", "Expected: a network", "Fix: "):
        assert words in refused.text
    tags = world.aliases.version(1).tags
    assert "judge is blind" in tags["rcg.gate.failed"]
    assert "rcg.gate.fd" not in tags, "a number of a blind judge is shown nowhere"
    assert "fd" not in history_lines(world.decisions)[0]
    assert refused.decision is not None
    assert refused.decision.protocol["controls"]["judge_blind"] == 1
    world.judge(80)
    assert world.promote().result == "promoted"


def test_two_deciders_one_waits(world: World) -> None:
    world.register(1)
    with deciding(world.project.store, world.aliases), pytest.raises(ConflictError, match="pid"):
        world.promote()
    assert world.promote().result == "promoted"


@pytest.mark.parametrize(
    ("harm", "error", "words"),
    [
        (lambda folder: _overwrite(folder / "rcg.json"), TamperedError, "not the one"),
        (shutil.rmtree, MissingError, "not there"),
    ],
    ids=["tampered", "missing"],
)
def test_a_champion_whose_bundle_is_damaged_is_named_and_nothing_changes(
    world: World, harm: Callable[[Path], object], error: type[RcgError], words: str
) -> None:
    one = world.register(1)
    world.promote()
    world.register(2)
    harm(Path(world.aliases.version(one).source.removeprefix("file://")))
    with pytest.raises(error, match=words):
        world.promote()
    assert world.where() == (1, None)
    assert len(world.decisions.all()) == 1


def _overwrite(path: Path) -> None:
    path.chmod(0o644)
    path.write_text("{}")


def test_code_that_no_run_of_the_store_made_is_not_run(world: World) -> None:
    """Whoever may write to the registry can name any folder, with its right digest."""
    from flows.tracking.client import open_client

    world.register(1)
    world.promote()
    theirs, ran = make_bundle(world.root / "theirs").root, world.root / "ran"
    (theirs / "components/__init__.py").write_text(f"open({str(ran)!r}, 'w')")
    tags = {DIGEST: bundle_digest(theirs), "rcg.content.collect": world.collect.digest}
    number = open_client(world.aliases.uri).create_model_version("rcg", theirs.as_uri(), tags=tags).version
    for act in (world.promote, lambda number: rollback(world.project, number)):
        with pytest.raises(RcgError):
            act(int(number))
    with pytest.raises(MissingError, match="code of version 2 is not known"):
        world.promote(int(number))
    assert not ran.exists()


def test_foreign_and_deleted_versions_are_named(world: World) -> None:
    from flows.tracking.client import open_client

    world.register(1)
    world.promote()
    client = open_client(world.aliases.uri)
    foreign = client.create_model_version("rcg", world.root.as_uri()).version
    client.set_registered_model_alias("rcg", CHALLENGER, foreign)
    with pytest.raises(ArtifactError, match="not registered by rcg"):
        world.promote()
    two = world.register(2)
    client.delete_model_version("rcg", str(two))
    with pytest.raises(MissingError, match="no challenger"):
        world.promote()
    with pytest.raises(MissingError, match="deleted"):
        world.promote(two)
    with pytest.raises(MissingError, match="deleted"):
        rollback(world.project, two)
    client.delete_model_version("rcg", "1")
    world.register(3)
    assert world.promote().result == "promoted", "without a champion the floors decide"


def test_good_images_beat_noise_and_a_batch_of_noise_does_not_make_noise_good(tmp_path: Path) -> None:
    """The reference itself, on images of known quality; the batch is a third of the collection."""
    splits = ["train"] * 150 + ["test"] * 150
    make_collect(tmp_path / "old", tmp_path / "pictures", splits)
    noisy, source = _with_noise(tmp_path, splits[::2])
    params = yaml.safe_load((ROOT / "presets/smoke.yaml").read_text())
    from flows.pipeline.params import check_params

    checked = check_params(params, "smoke")
    evaluate = checked.evaluate.model_copy(
        update={
            "features": checked.evaluate.features.model_copy(update={"dim": 4}),
            "train": checked.evaluate.train.model_copy(update={"steps": 150}),
        }
    )
    worker = lone_worker(torch.device("cpu"), tmp_path)
    reference = Reference(evaluate, noisy, FolderArtifact(tmp_path / "old"), source, worker, 8)
    gate = checked.gate.model_copy(update={"margin": 0.3, "margin_known": 0.5, "n_bootstrap": 100})
    bars, other = (_dimmed(draw_bars(300, seed=seed)[0]) for seed in (7, 8))
    noise = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    mixed = np.concatenate([bars[:200], noise[:100]])

    def failed(challenger: np.ndarray) -> list[str]:
        seen = [reference.see(images) for images in (other, challenger)]
        differences = reference.differences(seen[0], seen[1], gate)
        found = checks(gate, reference.metrics(seen[1]), differences, first=False)
        return [check.name for check in found if not check.passed]

    assert reference.known is not None
    assert int(reference.known.sum()) == splits.count("test")
    assert failed(bars) == []
    assert "distance_all" in failed(noise)
    assert failed(mixed) == ["distance_known"], "on its own collection the poisoned model looks fine"


def _dimmed(images: np.ndarray) -> np.ndarray:
    """What a fair model would draw: the right picture, not quite bright enough."""
    return (images * 0.7).astype(np.uint8)


def _with_noise(root: Path, splits: list[str]) -> tuple[FolderArtifact, str]:
    """The old collection and half as many pictures of noise, as a collection of two chunks."""
    import hashlib

    import pyarrow as pa
    from PIL import Image

    from components.collection.images import index_name, index_schema

    shutil.copytree(root / "old", root / "collect")
    out = FolderArtifact(root / "collect")
    rng, rows = np.random.default_rng(3), []
    for i, split in enumerate(splits):
        path = root / "pictures" / f"noise{i}.png"
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        data = path.read_bytes()
        rows.append(
            {
                "key": path.name,
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
                "width": 8,
                "height": 8,
                "hash": bytes(16),
                "constant": False,
                "split": split,
                "label": None,
                "caption": None,
            }
        )
    with out.file(index_name("c00001")) as path, pa.ipc.new_file(str(path), index_schema()) as file:
        file.write_table(pa.Table.from_pylist(rows, schema=index_schema()))
    listing = json.loads(out.read_bytes("collection.json"))
    listing["chunks"].append({"name": "c00001", "count": len(rows)})
    listing["classes"] = None  # the network redraws: labels would not see noise
    out.write_json("collection.json", listing)
    return out, str(root / "pictures")
