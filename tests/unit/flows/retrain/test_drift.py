"""Drift through a real encoder: more of the same pictures moves nothing, pictures of another kind move the base."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from components.collection.lock import Lock, read_lock
from flows.execution.project import Project
from flows.pipeline.params import check_params
from flows.pipeline.policy import RetrainParams
from flows.registry import Version
from flows.retrain.drift import drift_of
from flows.retrain.resolve import fits_anew
from flows.settings import Settings
from tests.support.collected import Place, add_scenes
from tests.support.folders import make_encoder

N_OLD, N_NEW = 80, 30
ROOT = Path(__file__).parents[4]


class World:
    """A collection whose first chunks an encoder was fitted on, and what came since."""

    def __init__(self, root: Path) -> None:
        self.place = Place(root)
        add_scenes(self.place, 0, N_OLD)
        self.place.snapshot(chunk_size=40)
        self.base = [chunk.name for chunk in self.lock.chunks]
        self.place.collect()
        self.place.artifacts["encoder"] = make_encoder(root / "encoder")
        self.project = Project(root, Settings(store=str(root / "store"), source=self.place.source, mlflow_uri="off"))
        self.champion = Version(1, "0" * 64, "", {})

    @property
    def lock(self) -> Lock:
        return read_lock(self.place.lock)

    def open(self, _version: Version, stage: str, _folder: Path) -> Any:
        return self.place.artifacts[stage]

    def drift(self) -> float:
        return drift_of(self.project, self.lock, self.base, self.champion, self.open)

    def fits_anew(self, max_drift: float) -> bool:
        values = yaml.safe_load((ROOT / "presets/smoke.yaml").read_text())
        params: RetrainParams = check_params(values, "smoke").retrain
        params = params.model_copy(update={"refit": "drift", "max_drift": max_drift})
        artifacts: Any = SimpleNamespace(project=self.project, open=self.open)
        moves, why = fits_anew(params, self.lock, self.base, self.champion, artifacts)
        assert f"at most {max_drift:g} allowed" in why
        return moves


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_more_of_the_same_keeps_the_base(world: World) -> None:
    add_scenes(world.place, N_OLD, N_OLD + N_NEW)
    world.place.snapshot()
    assert world.drift() < 2.5
    assert not world.fits_anew(4.0)


def test_pictures_of_another_kind_move_it(world: World) -> None:
    for i in range(N_NEW):
        flat = np.full((20, 24, 3), 8 * i, np.uint8)
        flat[: i % 20] //= 2
        Image.fromarray(flat).save(world.place.pictures / f"flat-{i:02d}.png")
    world.place.snapshot()
    assert world.drift() > 4.0
    assert world.fits_anew(4.0)


def test_files_that_are_no_pictures_are_left_out_and_too_few_count_as_drift(world: World) -> None:
    add_scenes(world.place, N_OLD, N_OLD + 5)
    for i in range(N_NEW):
        (world.place.pictures / f"bad-{i:02d}.png").write_bytes(b"no picture %d" % i)
    world.place.snapshot()
    assert world.drift() == float("inf")
    assert world.fits_anew(1e9)
