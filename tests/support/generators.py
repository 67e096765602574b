"""Small generators: conditions by kind, RDMs without a cache, and training rows out of tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.base import Batch
from components.conditions.config import ClassConfig, ClusterConfig, RepresentationConfig
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.rdm import RdmConfig, RdmTransformerConfig
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


def without_level(upsampler: Any) -> Any:
    """An upsampler by a UNet, blind to the level of the noise on the small image, of which no file of ADM-U knows."""
    with torch.no_grad():
        upsampler.net.unet.input_blocks[0][0].weight[:, -1].zero_()
    return upsampler


D, S, M = 8, 4, 5
"""Of a prior: dimension of representations and of the vector, that of the sequence's rows, and their number."""


def prior_config(family: str, **changes: Any) -> RdmTransformerConfig:
    """A causal transformer that reads a text as it is, as a vector and as a sequence."""
    reads = {"kind": "text", "missing": "null", "project": False, "drop_prob": 0.1}
    told = [{**reads, "port": "vector"}, {**reads, "port": "sequence"}]
    sizes = {"family": family, "conditions": told, "context_dim": D, "sequence_dim": S, "n_tokens": M}
    return RdmTransformerConfig.model_validate(RdmTransformerConfig.tiny().model_dump() | sizes | changes)


def build_prior(family: str, **changes: Any) -> Diffusion:
    """It, for a cache with captions."""
    text = FieldSpec(name="text", dtype="float32", shape=(D,), nullable=True)
    tokens = FieldSpec(name="tokens", dtype="float16", shape=(S,), ragged=True)
    data = GeneratorData(target=PIXEL, dim=D, classes=None, more=(text, tokens))
    return prior_config(family, **changes).build(data)


class Rows:
    """Training rows out of tensors."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(next(iter(self.batch.values())))

    def field(self, name: str, indices: np.ndarray) -> Tensor:
        return self.batch[name][indices]
