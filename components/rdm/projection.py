"""The representation generator without diffusion: the one point that the conditions lead to. Paper: 2312.04655.

A baseline: its samples of one caption are all alike. Imports without torch: build() imports the network.
"""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from components.conditions.config import TextConfig
from components.generators.config import DirectConfig, GeneratorData
from components.rdm.base import representations

if TYPE_CHECKING:
    from components.generators.direct import Direct


class RdmProjectionConfig(DirectConfig):
    """A residual MLP from the conditions to a representation."""

    ports = ("vector",)
    kind: Literal["projection"]
    dim: int = Field(ge=2)
    """Dimension of the representations; must be the encoder's."""
    width: int = Field(ge=2, multiple_of=2)
    """Width of the residual blocks."""
    depth: int = Field(ge=1)
    """Number of residual blocks."""
    context_dim: int = Field(ge=1)
    """Width of the embedded conditions."""

    @model_validator(mode="after")
    def _reads(self) -> Self:
        if not self.conditions:
            raise ValueError("a projection without a condition is one constant; add one, e.g. of kind text")
        return self

    @classmethod
    def tiny(cls) -> Self:
        sizes = {"dim": 8, "width": 16, "depth": 2, "context_dim": 4}
        return cls(
            kind="projection", conditions=(TextConfig.tiny(),), contrast=0.1, temperature=0.1, n_rivals=4, **sizes
        )

    def build(self, data: GeneratorData) -> "Direct":
        """Raises: ConfigError when the cache has representations of another dimension, or lacks a field."""
        from components.conditions.container import Conditions
        from components.generators.direct import Direct
        from components.rdm.denoiser import ResidualMlp

        network = ResidualMlp(
            dim=self.dim,
            c_out=self.dim,
            width=self.width,
            depth=self.depth,
            time_dim=self.context_dim,
            context_dim=self.context_dim,
        )
        conditions = Conditions(self.conditions, network, data.fields)
        return Direct(self, data, spec=representations(data, self.dim), network=network, conditions=conditions)
