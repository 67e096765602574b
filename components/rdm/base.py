"""What the configs of all representation generators share. Imports without torch, but for the parts of `generator`."""

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from components.diffusion.bases.config import NORMAL, BaseConfig, ConditionalConfig, GaussiansConfig, is_normal
from components.errors import ConfigError
from components.generators.config import DiffusionConfig, GeneratorData
from components.target import EventSpec

if TYPE_CHECKING:
    from components.diffusion.network import Network
    from components.diffusion.process import BaseDistribution
    from components.generators.diffusion import Diffusion


def representations(data: GeneratorData, dim: int) -> EventSpec:
    """What is made. Raises: ConfigError unless they have this dimension in the cache."""
    if data.dim != dim:
        raise ConfigError(
            f"the encoder's representations have {data.dim} dimensions, but rdm.model.dim is {dim}",
            fix=f"set rdm.model.dim: {data.dim}",
        )
    return EventSpec(space="representations", shape=(dim,), dtype="float32", n_codes=None)


class RepresentationDiffusionConfig(DiffusionConfig):
    """Diffusion over representations."""

    base: BaseConfig = Field(default=NORMAL, exclude_if=is_normal)
    """Where the forward process ends. normal: at N(0, I) (RCG); gaussians: near the data (Corgi);
    conditional: where a condition says (CPD-FM)."""

    @model_validator(mode="after")
    def _chooses_by_a_condition(self) -> Self:
        field = getattr(self.base, "field", None)
        if field is not None and field not in [condition.field for condition in self.conditions]:
            raise ValueError(
                f"base reads {field}, which is no condition; add one that reads it, or take Gaussians by: frequencies"
            )
        return self

    @property
    def tells_index(self) -> bool:
        """Whether the network is told the component."""
        return isinstance(self.base, GaussiansConfig) and self.base.index

    def generator(
        self, data: GeneratorData, network: "Network", *, dim: int, table_std: float | None = 0.02
    ) -> "Diffusion":
        """Diffusion with this network. Raises: ConfigError for another dimension, or a field that the cache lacks."""
        from components.conditions.container import Conditions
        from components.generators.diffusion import Diffusion

        spec = representations(data, dim)
        conditions = Conditions(self.conditions, network, data.fields, table_std=table_std)
        return Diffusion(self, data, spec=spec, network=network, conditions=conditions, base=self._base(data, dim))

    def _base(self, data: GeneratorData, dim: int) -> "BaseDistribution | None":
        from components.diffusion.bases.conditional import Conditional
        from components.diffusion.bases.gaussians import Gaussians

        match self.base:
            case GaussiansConfig():
                return Gaussians(self.base, dim=dim, fields=data.fields)
            case ConditionalConfig():
                return Conditional(self.base, dim=dim, fields=data.fields)
        return None
