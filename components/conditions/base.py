"""What every condition's embedder is, and what it checks of the field that it reads."""

from abc import ABC, abstractmethod

from jaxtyping import Bool
from torch import Tensor, nn

from components.base import Batch
from components.conditions.config import (
    FieldConditionConfig,
    RepresentationConfig,
    TextConfig,
    TextTransformerConfig,
)
from components.conditions.ports import Embedded
from components.errors import ConfigError, ShapeError
from components.fields import TEXT_FIELDS, FieldSpec, mask_name
from components.rng import Rng

_HOW_GIVEN = {
    "representation": "sample one from the RDM, or give real ones (oracle)",
    **dict.fromkeys(TEXT_FIELDS, "give one (--text), or train with drop_prob above 0"),
}
STD = 0.02
"""Of fresh nulls and tables, as DiT has it for labels."""


class Embedder(nn.Module, ABC):
    """The base of a condition."""

    null: nn.Parameter
    """What stands for a dropped or missing condition."""

    def fit(self, rows: Batch, seed: int, *, trained: bool) -> None:
        """Read off all training rows what is not learned. `trained`: the weights come from a finished run."""

    def augmented(self, batch: Batch, rng: Rng) -> Batch:  # noqa: ARG002
        """The batch as training shows it."""
        return batch

    @abstractmethod
    def forward(self, batch: Batch, drop: Bool[Tensor, " b"] | None) -> Embedded:
        """Embedded rows; those of `drop` get the null."""

    @abstractmethod
    def filled(self, batch: Batch, rng: Rng) -> Embedded:
        """Embedded rows for sampling, where the field may be absent. Raises: ConfigError when it may not."""

    @abstractmethod
    def nulls(self, n: int, m: int = 1) -> Embedded:
        """The null for n examples; for a condition that is a sequence, of length m."""


class FieldEmbedder(Embedder):
    """The base of a condition that cannot be sampled by frequencies: what of its field is missing is null."""

    def __init__(
        self, config: RepresentationConfig | FieldConditionConfig | TextConfig | TextTransformerConfig
    ) -> None:
        super().__init__()
        self.field, self.may_miss = config.field, config.may_be_absent

    def filled(self, batch: Batch, rng: Rng) -> Embedded:
        if self.field in batch:
            rows: Embedded = self(batch, None)
            return rows
        if not self.may_miss:
            fix = _HOW_GIVEN.get(self.field, f"give one, or train with missing: null for {self.field}")
            raise ConfigError(f"this generator needs a {self.field} to sample", fix=fix)
        return self.nulls(rng.rows)

    def absent(self, batch: Batch, drop: Bool[Tensor, " b"] | None) -> Bool[Tensor, " b"] | None:
        """Rows that get the null: dropped, or without the field; none if None."""
        mask = batch.get(mask_name(self.field))
        missing = None if mask is None else ~(mask if mask.ndim == 1 else mask.any(1))
        return missing if drop is None else drop if missing is None else drop | missing


def check_shape(field: FieldSpec, *, n_axes: int, ragged: bool, kind: str) -> None:
    axes = len(field.shape) - (field.choices and field.is_sequence)
    if axes != n_axes or field.is_sequence != ragged:
        raise ConfigError(
            f"the field {field.name} does not suit a condition of kind {kind}",
            got=f"{'any number of ' if field.is_sequence else ''}{field.dtype} {field.shape}",
            expected=f"{'any number of rows' if ragged else 'a value'} of {n_axes} {'axis' if n_axes == 1 else 'axes'}",
        )


def check_width(field: str, dim: int, width: int, param: str) -> None:
    if width != dim:
        raise ConfigError(
            f"a {field} that is fed as it is needs a port of its own width",
            got=f"dimension {dim}, width {width}",
            fix=f"set project: true, or the width ({param}) to {dim}",
        )


def checked(field: str, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(values.shape[1:]) != shape:
        expected = f"(b, {', '.join(map(str, shape))})"
        raise ShapeError(f"{field} of the wrong shape", got=tuple(values.shape), expected=expected)
    return values
