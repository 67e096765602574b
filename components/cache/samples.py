"""Generated images as the sample stage stores them: one safetensors shard per micro-batch, and samples.json.

A shard holds `image` (b, px, px, 3) uint8 and, where they were used, `representation` (b, dim) and `class` (b,) int64.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.base import Reader
from components.config import Config
from components.errors import ArtifactError
from components.rng import derive_seed

INDEX = "samples.json"


class SamplesInfo(Config):
    """samples.json: what the shards hold and where the images came from."""

    n: int
    """Number of images."""
    batch_size: int
    """Images per shard; the last one may hold fewer."""
    px: int
    """Side of the square images."""
    dim: int | None
    """Dimension of the representations; None when the generator used none."""
    has_class: bool
    """Whether the shards hold the class that each image was asked for."""
    sampling: dict[str, Any]
    """The sampling options."""
    pixels: dict[str, Any]
    """config.json of the pixel generator."""
    rdm: dict[str, Any] | None
    """config.json of the representation generator; None when it drew nothing."""
    parents: dict[str, str]
    """Content digests of the artifacts that the images were drawn with."""

    @property
    def n_shards(self) -> int:
        return -(-self.n // self.batch_size)

    def bounds(self, shard: int) -> tuple[int, int]:
        """First image of a shard, and the one after its last."""
        return shard * self.batch_size, min(self.n, (shard + 1) * self.batch_size)


def oracle_rows(n_real: int, start: int, stop: int, *, seed: int) -> np.ndarray:
    """Rows of real images for samples start..stop: a new permutation of all of them whenever they are used up."""
    index = np.arange(start, stop)
    rows = np.empty(len(index), np.int64)
    for lap in np.unique(index // n_real):
        order = np.random.default_rng(derive_seed(seed, "oracle", int(lap))).permutation(n_real)
        here = index // n_real == lap
        rows[here] = order[index[here] % n_real]
    return rows


def shard_name(shard: int) -> str:
    """Logical path of a shard."""
    return f"images/{shard:06d}.safetensors"


def save_shard(path: Path, images: np.ndarray, *, representation: Tensor | None, label: Tensor | None) -> None:
    """Write one shard; equal content gives equal bytes."""
    tensors = {"image": torch.from_numpy(np.ascontiguousarray(images))}
    if representation is not None:
        tensors["representation"] = representation.detach().to("cpu", torch.float32).contiguous()
    if label is not None:
        tensors["class"] = label.detach().to("cpu", torch.int64).contiguous()
    save_file(tensors, path)


class Samples:
    """A sample artifact, read shard by shard."""

    def __init__(self, artifact: Reader) -> None:
        self.info = SamplesInfo.model_validate(artifact.read_json(INDEX))
        self._artifact = artifact

    def __len__(self) -> int:
        return self.info.n

    def batches(self) -> Iterator[np.ndarray]:
        """All images in order. Shapes: (b_i, px, px, 3) uint8."""
        return map(self.batch, range(self.info.n_shards))

    def batch(self, shard: int) -> np.ndarray:
        """The images of one shard. Shapes: (b_i, px, px, 3) uint8."""
        images: np.ndarray = self._shard(shard)["image"].numpy()
        return images

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Chosen images in the given order. Shapes: (n,) -> (n, px, px, 3) uint8."""
        owner = np.asarray(indices) // self.info.batch_size
        out = np.empty((len(owner), self.info.px, self.info.px, 3), np.uint8)
        for shard in np.unique(owner):
            here = np.flatnonzero(owner == shard)
            out[here] = self._shard(int(shard))["image"].numpy()[indices[here] - self.info.bounds(int(shard))[0]]
        return out

    def representations(self) -> np.ndarray | None:
        """(n, dim) float32, or None when the generator used none."""
        return None if self.info.dim is None else self._all("representation")

    def labels(self) -> np.ndarray | None:
        """(n,) int64 classes that the images were asked for, or None."""
        return self._all("class") if self.info.has_class else None

    def _all(self, name: str) -> np.ndarray:
        return np.concatenate([self._shard(shard)[name].numpy() for shard in range(self.info.n_shards)])

    def _shard(self, shard: int) -> dict[str, Tensor]:
        tensors = load_file(self._artifact.path(shard_name(shard)))
        start, stop = self.info.bounds(shard)
        if len(tensors["image"]) != stop - start:
            raise ArtifactError(
                f"{shard_name(shard)} does not fit {INDEX}", got=len(tensors["image"]), expected=stop - start
            )
        return tensors
