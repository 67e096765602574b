"""Pictures that this project makes: a bundle's, sampled on the fly, and the network that must not judge them."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.bundle.bundle import Bundle
from components.bundle.request import Request
from components.cache.samples import INDEX, SamplesInfo, save_shard, shard_name
from components.errors import ConfigError
from components.images.pictures import to_uint8
from components.metrics.networks.base import Frozen, Identity, Seen
from flows.evaluation.made import open_pictures
from flows.evaluation.networks import Choice
from flows.evaluation.run import Asked, judge
from flows.execution.project import Project
from flows.settings import Settings
from tests.support.bundles import make_bundle
from tests.support.folders import PX, FolderArtifact, draw_bars, represent
from tests.support.made_project import STAGES, MadeProject


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> FolderArtifact:
    return make_bundle(tmp_path_factory.mktemp("rcg"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, Settings())


def test_a_bundle_is_sampled_on_the_fly(bundle: FolderArtifact, project: Project, tmp_path: Path) -> None:
    made = open_pictures(str(bundle.root), project, px=None, n=5, seed=3, scratch=tmp_path)
    expected = to_uint8(Bundle.load(bundle.root).sample(Request(n=5, seed=3)))
    assert np.array_equal(np.concatenate(list(made.batches(64))), expected)
    assert made.sampled["pixels"]
    other = open_pictures(str(bundle.root), project, px=None, n=5, seed=4, scratch=tmp_path)
    assert other.digest != made.digest
    with pytest.raises(ConfigError, match="-n 1000"):
        open_pictures(str(bundle.root), project, px=None, n=None, seed=3, scratch=tmp_path)
    with pytest.raises(ConfigError, match="sample has not run"):
        open_pictures("sample", project, px=None, n=None, seed=3, scratch=tmp_path)


class _Judge(Frozen):
    """Holds a network, and sees mean colors."""

    def load(self) -> "_Judge":
        return self

    def __call__(self, images: np.ndarray) -> Seen:
        return Seen(images.mean((1, 2)).astype(np.float32))


def _silent(_what: str, _n: int) -> Any:
    return contextlib.nullcontext(lambda _done: None)


def test_the_conditioning_encoder_judges_only_where_that_is_said(
    bundle: FolderArtifact, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    judging = _Judge(Bundle.load(bundle.root).encoder.network, Identity("timm", "x", "0" * 64, "none"))
    monkeypatch.setattr(Choice, "config", lambda _: judging)
    np.savez("real.npz", np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8))
    asked = Asked([str(bundle.root)], "real.npz", Choice("timm"), n=6, k=1, n_bootstrap=0)
    with pytest.raises(ConfigError, match="judge is the encoder that conditions"):
        judge(asked, project, _silent)
    judged = judge(replace(asked, allow_same=True), project, _silent)
    assert any("flatters" in remark for remark in judged.remarks)
    assert judged.rows[0].protocol.n == 6


def _with_samples(root: Path, encoder: FolderArtifact) -> Project:
    """A project whose stage `sample` made six pictures from representations of the encoder."""
    made = MadeProject(root)
    images, _ = draw_bars(6)
    out = FolderArtifact(root / "drawn")
    info = SamplesInfo(n=6, batch_size=6, px=PX, dim=8, has_class=False, sampling={}, pixels={}, rdm=None, parents={})
    with out.file(shard_name(0)) as path:
        save_shard(path, images, representation=torch.from_numpy(represent(images)), label=None)
    out.write_json(INDEX, info.model_dump(mode="json"))
    runs, folders = dict(made.newest), {"encoder": encoder, "sample": out}
    for stage in ("encoder", "encode", "rdm", "pixels", "sample"):
        folder = folders.get(stage)
        files = {} if folder is None else {name: folder.read_bytes(name) for name in folder.names()}
        runs[stage] = made.commit(stage, {"numerics": 2}, runs, files, 0)
    made.project.workspace.publish(made.store, runs["sample"], STAGES["sample"])
    return made.project


@pytest.mark.parametrize("n", [6, 5])
def test_samples_of_the_stage_are_checked_as_a_bundle_is(
    bundle: FolderArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    project = _with_samples(tmp_path, FolderArtifact(bundle.root / "encoder"))
    judging = _Judge(Bundle.load(bundle.root).encoder.network, Identity("timm", "x", "0" * 64, "none"))
    monkeypatch.setattr(Choice, "config", lambda _: judging)
    np.savez(tmp_path / "real.npz", np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8))
    asked = Asked(["sample"], str(tmp_path / "real.npz"), Choice("timm"), n=n, k=1, n_bootstrap=0)
    with pytest.raises(ConfigError, match="judge is the encoder that conditions"):
        judge(asked, project, _silent)
    judged = judge(replace(asked, allow_same=True), project, _silent)
    assert any("flatters" in remark for remark in judged.remarks)
    monkeypatch.setattr(judging, "module", torch.nn.Linear(2, 2))
    assert not any("flatters" in remark for remark in judge(asked, project, _silent).remarks)
