"""How a component is chosen: in training by a key, in sampling by p(c | y), which must be the training rows' own.

c: component, y: condition, z: representation.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from components.base import Batch
from components.conditions.frequencies import shares
from components.diffusion.bases.config import ByClassConfig, FrequenciesConfig, GaussiansConfig, PredictedConfig
from components.errors import ConfigError
from components.fields import FieldSpec, find_field, mask_name


class Choice(nn.Module):
    """By frequency. The key is the row itself, and no condition is read."""

    weight: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.full((k,), 1.0 / k))

    def key(self, batch: Batch, means: Float[Tensor, "k dim"]) -> Int[Tensor, " b"] | None:  # noqa: ARG002
        """Component by the condition, -1 where it is missing; None: every row is its own key."""
        return None

    def fit(self, owner: Int[Tensor, " n"], batch: Batch) -> None:  # noqa: ARG002
        """Frequencies of the training rows' components."""
        self.weight.copy_(shares(owner, len(self.weight)))

    def probabilities(self, batch: Batch, n: int, means: Tensor) -> Float[Tensor, "n k"]:  # noqa: ARG002
        """p(c | y) of n examples; the frequencies where y is missing."""
        return self.weight.expand(n, -1)

    def loss(self, owner: Int[Tensor, " b"], batch: Batch) -> Float[Tensor, " b"] | None:  # noqa: ARG002
        """What trains p(c | y), where it is learned."""
        return None


class ByClass(Choice):
    """By frequency within the class; of an unknown class, or one without training rows, by frequency."""

    table: Tensor

    def __init__(self, k: int, field: FieldSpec) -> None:
        super().__init__(k)
        self.register_buffer("table", torch.full((len(field.names or ()), k), 1.0 / k))

    def fit(self, owner: Int[Tensor, " n"], batch: Batch) -> None:
        super().fit(owner, batch)
        for y, row in enumerate(self.table):
            row.copy_(shares(owner[batch["class"] == y], len(self.weight)))

    def probabilities(self, batch: Batch, n: int, means: Tensor) -> Float[Tensor, "n k"]:
        overall = super().probabilities(batch, n, means)
        if "class" not in batch:
            return overall
        y = batch["class"]
        rows = self.table[y.clamp(min=0)]
        known = (y >= 0) & (rows.sum(1) > 0)
        return torch.where(known[:, None], rows, overall)


class OfField(Choice):
    """The base of a choice by a vector, which may be missing."""

    def __init__(self, k: int, field: FieldSpec) -> None:
        super().__init__(k)
        self.field = field.name

    def probabilities(self, batch: Batch, n: int, means: Tensor) -> Float[Tensor, "n k"]:
        overall = super().probabilities(batch, n, means)
        if self.field not in batch:
            return overall
        return torch.where(present(batch, self.field)[:, None], self.given(batch[self.field].float(), means), overall)

    def given(self, vectors: Float[Tensor, "b width"], means: Tensor) -> Float[Tensor, "b k"]:
        """p(c | y) by the vector."""
        raise NotImplementedError


class Nearest(OfField):
    """The mean of the largest cosine to the vector, in training and in sampling. Paper: 2211.15388."""

    def key(self, batch: Batch, means: Float[Tensor, "k dim"]) -> Int[Tensor, " b"] | None:
        return torch.where(present(batch, self.field), _most_alike(batch[self.field].float(), means), -1)

    def given(self, vectors: Float[Tensor, "b width"], means: Tensor) -> Float[Tensor, "b k"]:
        return nn.functional.one_hot(_most_alike(vectors, means), len(means)).float()


class Predicted(OfField):
    """A softmax layer on the vector, which is standardized by row. The key is the representation."""

    def __init__(self, k: int, field: FieldSpec) -> None:
        super().__init__(k, field)
        self.head = nn.Sequential(nn.LayerNorm(field.size, elementwise_affine=False), nn.Linear(field.size, k))

    def given(self, vectors: Float[Tensor, "b width"], means: Tensor) -> Float[Tensor, "b k"]:  # noqa: ARG002
        logits: Tensor = self.head(vectors)
        return logits.softmax(1)

    def loss(self, owner: Int[Tensor, " b"], batch: Batch) -> Float[Tensor, " b"] | None:
        nats = nn.functional.cross_entropy(self.head(batch[self.field].float()), owner, reduction="none")
        return torch.where(present(batch, self.field), nats, 0.0)


def choice_of(config: GaussiansConfig, fields: Sequence[FieldSpec], dim: int) -> Choice:
    """Raises: ConfigError for a field that the cache lacks, or that does not suit."""
    how, k = config.choice, config.k
    if isinstance(how, FrequenciesConfig):
        return Choice(k)
    if isinstance(how, ByClassConfig):
        return ByClass(k, next(field for field in fields if field.name == "class"))
    field = vector_field(fields, how.field)
    if isinstance(how, PredictedConfig):
        return Predicted(k, field)
    if field.size != dim:
        raise ConfigError(
            f"{field.name} does not lie in the space of the representations",
            got=f"dimension {field.size}",
            expected=f"dimension {dim}, as of the text tower of the encoder",
            fix="set rdm.model.base.choice.by: predicted",
        )
    return Nearest(k, field)


def vector_field(fields: Sequence[FieldSpec], name: str) -> FieldSpec:
    """Raises: ConfigError for a field that the cache lacks, or that is no vector."""
    field = find_field(fields, name)
    if len(field.shape) != 1 or field.is_sequence:
        raise ConfigError(f"a component is chosen by a vector, and {field.name} is none", got=f"shape {field.shape}")
    return field


def present(batch: Batch, field: str) -> Bool[Tensor, " b"]:
    """Rows that have it; a vector of zeros is none."""
    mask = batch.get(mask_name(field))
    return batch[field].any(1) if mask is None else mask


def _most_alike(vectors: Float[Tensor, "b dim"], means: Float[Tensor, "k dim"]) -> Int[Tensor, " b"]:
    return (vectors @ nn.functional.normalize(means, dim=1).T).argmax(1)
