"""Small generators: conditions by kind, RDMs without a cache, and training rows out of tensors."""

from typing import Any

import numpy as np
from torch import Tensor

from components.base import Batch
from components.conditions.config import ClassConfig, ClusterConfig, RepresentationConfig
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.rdm import RdmConfig
from components.target import TargetSpec

KINDS: dict[str, Any] = {
    "representation": RepresentationConfig.tiny(),
    "class": ClassConfig.tiny(),
    "cluster": ClusterConfig.tiny(),
}
BY_CLASS = (ClassConfig(kind="class", port="vector", drop_prob=0.0, missing="skip"),)
"""The condition of a class-conditional RDM."""
PIXEL = TargetSpec(space="pixels", shape=(1, 8, 8), dtype="uint8", n_codes=None, image_px=8)


def conditions(kind: str, **changes: Any) -> tuple[Any, ...]:
    """The condition of this kind alone; none for "none"."""
    return () if kind == "none" else (KINDS[kind].model_copy(update=changes),)


def build_rdm(config: RdmConfig, n_classes: int | None = None) -> Diffusion:
    """An RDM for representations of its dimension."""
    classes = tuple(map(str, range(n_classes))) if n_classes else None
    return config.build(GeneratorData(target=PIXEL, dim=config.dim, classes=classes))


class Rows:
    """Training rows out of tensors."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(next(iter(self.batch.values())))

    def field(self, name: str, indices: np.ndarray) -> Tensor:
        return self.batch[name][indices]
