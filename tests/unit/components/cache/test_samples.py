"""Samples are read back as they were written, whatever the shard boundaries."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.cache.samples import INDEX, Samples, SamplesInfo, save_shard, shard_name
from components.errors import ArtifactError


class Folder:
    """An artifact in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        return self.root / name

    def read_json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text())


def _write(root: Path, *, n: int = 7, batch_size: int = 3, conditioned: bool = True) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (n, 4, 4, 3)).astype(np.uint8)
    info = SamplesInfo(
        n=n,
        batch_size=batch_size,
        px=4,
        dim=2 if conditioned else None,
        has_class=conditioned,
        sampling={},
        pixels={},
        rdm=None,
        parents={},
    )
    (root / "images").mkdir()
    (root / INDEX).write_text(info.model_dump_json())
    for shard in range(info.n_shards):
        start, stop = info.bounds(shard)
        rows = torch.arange(start, stop)
        z, y = (rows[:, None].repeat(1, 2).float(), rows) if conditioned else (None, None)
        save_shard(root / shard_name(shard), images[start:stop], representation=z, label=y)
    return images


def test_round_trip(tmp_path: Path) -> None:
    images = _write(tmp_path)
    samples = Samples(Folder(tmp_path))
    assert len(samples) == 7
    assert (np.concatenate(list(samples.batches())) == images).all()
    chosen = np.array([6, 0, 3, 3, 2])
    assert (samples.images(chosen) == images[chosen]).all()
    z, labels = samples.representations(), samples.labels()
    assert z is not None
    assert labels is not None
    assert z[:, 1].tolist() == labels.tolist() == list(range(7))


def test_unconditional_samples_have_neither_representation_nor_class(tmp_path: Path) -> None:
    _write(tmp_path, conditioned=False)
    samples = Samples(Folder(tmp_path))
    assert samples.representations() is None
    assert samples.labels() is None


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    for name in ("a", "b"):
        save_shard(tmp_path / name, images, representation=torch.ones(2, 3), label=None)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_shard_of_the_wrong_length_is_named(tmp_path: Path) -> None:
    images = _write(tmp_path)
    save_shard(tmp_path / shard_name(1), images[:2], representation=None, label=None)
    with pytest.raises(ArtifactError, match="000001"):
        list(Samples(Folder(tmp_path)).batches())
