"""The representation generator as a causal transformer, which reads a caption word by word.

Papers: 2211.15388 (Corgi), 2204.06125 (unCLIP's prior). Imports without torch: build() imports the network.
"""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from components.conditions.config import TextConfig
from components.config import check_divides
from components.diffusion.schedule import ScheduleConfig
from components.generators.config import GeneratorData
from components.rdm.base import RepresentationDiffusionConfig

if TYPE_CHECKING:
    from components.generators.diffusion import Diffusion


class RdmTransformerConfig(RepresentationDiffusionConfig):
    """A causal transformer over conditions, time and the noised representation."""

    ports = ("vector", "sequence")
    kind: Literal["transformer"]
    family: Literal["corgi", "unclip"]
    """corgi: RMS norms, gated MLPs, no positions; unclip: layer norms, plain MLPs, learned positions."""
    dim: int = Field(ge=2)
    """Dimension of the representations; must be the encoder's (Corgi: 1536)."""
    width: int = Field(ge=2, multiple_of=2)
    """Width of the tokens (Corgi and Karlo: 2048)."""
    depth: int = Field(ge=1)
    """Number of blocks (Corgi: 16 or 20; Karlo: 20)."""
    heads: int = Field(ge=1)
    """Attention heads; must divide width (32)."""
    mlp_ratio: float = Field(gt=0)
    """Hidden width of a block's MLP over width (4)."""
    context_dim: int = Field(ge=1)
    """Width of embedded vectors, before the network maps them to a token; that of the field if project: false."""
    sequence_dim: int = Field(ge=1)
    """Width of the rows of sequences, likewise; read only where there are some."""
    n_tokens: int = Field(ge=1)
    """Most rows of a sequence (Corgi: 80; Karlo: 77)."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        check_divides("heads", self.heads, "width", self.width)
        return self

    @classmethod
    def tiny(cls) -> Self:
        vector, sequence = TextConfig.tiny(), TextConfig.tiny().model_copy(update={"port": "sequence"})
        return cls(
            kind="transformer",
            family="corgi",
            conditions=(vector, sequence),
            dim=8,
            width=16,
            depth=2,
            heads=2,
            mlp_ratio=2.0,
            context_dim=6,
            sequence_dim=4,
            n_tokens=5,
            schedule=ScheduleConfig.tiny(),
            prediction="x0",
            min_snr=None,
            variance="fixed",
        )

    def build(self, data: GeneratorData) -> "Diffusion":
        """Raises: ConfigError when the cache has representations of another dimension, or lacks a field."""
        from components.rdm.causal import CausalShape, CausalTransformer

        shape = CausalShape(
            family=self.family,
            dim=self.dim,
            c_out=self.outputs(self.dim),
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            vector_width=self.context_dim if self.uses("vector") else None,
            sequence_width=self.sequence_dim if self.uses("sequence") else None,
            n_tokens=self.n_tokens,
            index=self.tells_index,
        )
        return self.generator(data, CausalTransformer(shape), dim=self.dim)
