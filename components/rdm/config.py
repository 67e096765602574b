"""The representation generator: a residual MLP that denoises representations. Paper: 2312.03701 (RCG).

Imports without torch: build() imports the network.
Differs: the reference keeps an unused class table in the unconditional model, and samples the class-conditional one
with averaged network but live class table; here all weights are averaged alike.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from components.diffusion.schedule import ScheduleConfig
from components.generators.config import GeneratorData
from components.rdm.base import RepresentationDiffusionConfig

if TYPE_CHECKING:
    from components.generators.diffusion import Diffusion


class RdmConfig(RepresentationDiffusionConfig):
    """The representation generator."""

    ports = ("vector",)
    kind: Literal["residual_mlp"]
    dim: int = Field(ge=2)
    """Dimension of the representations; must be the encoder's."""
    width: int = Field(ge=2, multiple_of=2)
    """Width of the residual blocks (paper: 1536)."""
    depth: int = Field(ge=1)
    """Number of residual blocks (paper: 12)."""
    time_dim: int = Field(ge=1)
    """Width of the time embedding (paper: 256)."""
    context_dim: int = Field(ge=1)
    """Width of the embedded conditions and index (paper: 512); read only where there are some."""

    @classmethod
    def tiny(cls) -> "RdmConfig":
        return cls(
            kind="residual_mlp",
            conditions=(),
            dim=8,
            width=16,
            depth=2,
            time_dim=8,
            context_dim=4,
            schedule=ScheduleConfig.tiny(),
            prediction="x0",
            min_snr=None,
            variance="fixed",
        )

    def build(self, data: GeneratorData) -> "Diffusion":
        """Raises: ConfigError when the cache has representations of another dimension, or no labels for classes."""
        from components.rdm.denoiser import ResidualMlp

        network = ResidualMlp(
            dim=self.dim,
            c_out=self.outputs(self.dim),
            width=self.width,
            depth=self.depth,
            time_dim=self.time_dim,
            context_dim=self.context_dim if self.conditions or self.tells_index else None,
            index=self.tells_index,
        )
        # Fresh class rows have std 1, as in the reference.
        return self.generator(data, network, dim=self.dim, table_std=None)
