"""Pictures that this project makes: a bundle's, sampled on the fly, and the network that must not judge them."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.bundle.bundle import Bundle
from components.bundle.request import Request
from components.errors import ConfigError
from components.images.pictures import to_uint8
from components.metrics.networks.base import Frozen, Identity, Seen
from flows.evaluation.made import open_pictures
from flows.evaluation.networks import Choice
from flows.evaluation.run import Asked, judge
from flows.execution.project import Project
from flows.settings import Settings
from tests.support.bundles import make_bundle
from tests.support.folders import FolderArtifact


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
    with pytest.raises(ConfigError, match="conditioned the pictures"):
        judge(asked, project, _silent)
    judged = judge(replace(asked, allow_same=True), project, _silent)
    assert any("flatters" in remark for remark in judged.remarks)
    assert judged.rows[0].protocol.n == 6
