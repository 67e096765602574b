"""One module per kind of condition: a field of the batch -> one vector per example, or its learned null.

z: representation, y: class index. A dropped condition is replaced by the null, which is what classifier-free guidance
(Ho & Salimans, 2207.12598) pushes away from. To add a condition: its config, a class here, and a case in `embedder`.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from components.base import Batch
from components.conditions.clustering import spherical_kmeans
from components.conditions.config import ClassConfig, ClusterConfig, ConditionConfig, RepresentationConfig
from components.conditions.frequencies import sample_index, shares
from components.errors import ConfigError, ShapeError
from components.rng import Rng

_STD = 0.02
"""Of fresh nulls and tables, as DiT has it for labels."""


class Embedder(nn.Module, ABC):
    """The base of a condition."""

    null: nn.Parameter
    """(1, w): what stands for a dropped condition."""

    def fit(self, rows: Batch, seed: int, *, trained: bool) -> None:
        """Read off all training rows what is not learned. `trained`: the weights come from a finished run."""

    @abstractmethod
    def forward(self, batch: Batch, drop: Bool[Tensor, " b"] | None) -> Float[Tensor, "b width"]:
        """Embedded rows; those of `drop` get the null."""

    def filled(self, batch: Batch, rng: Rng) -> Float[Tensor, "rows width"]:  # noqa: ARG002
        """Embedded rows for sampling, where a class or cluster may be absent. Raises: ConfigError when it may not."""
        rows: Tensor = self(batch, None)
        return rows

    def nulls(self, n: int) -> Float[Tensor, "n width"]:
        """The null, embedded."""
        return self.null.expand(n, -1)


class Representation(Embedder):
    """z, mapped to the port's width by a matrix or fed as it is; the null is a learned z. Paper: 2312.03701 (RCG).

    Raises: ConfigError for a z that is fed as it is into a port of another width.
    """

    def __init__(self, config: RepresentationConfig, *, width: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        if not config.project and width != dim:
            raise ConfigError(
                "a representation that is fed as it is needs a port of its own width",
                got=f"dimension {dim}, width {width}",
                fix=f"set project: true, or the width (context_dim) to {dim}",
            )
        self.project = nn.Linear(dim, width) if config.project else nn.Identity()
        self.null = nn.Parameter(torch.empty(1, dim))
        nn.init.normal_(self.null, std=_STD)
        if isinstance(self.project, nn.Linear):
            nn.init.xavier_uniform_(self.project.weight)
            nn.init.zeros_(self.project.bias)

    def forward(self, batch: Batch, drop: Bool[Tensor, " b"] | None) -> Float[Tensor, "b width"]:
        z = _checked(batch["representation"], self.dim)
        out: Tensor = self.project(z if drop is None else torch.where(drop[:, None], self.null, z))
        return out

    def filled(self, batch: Batch, rng: Rng) -> Float[Tensor, "rows width"]:
        if "representation" not in batch:
            fix = "sample one from the RDM, or give real ones (oracle)"
            raise ConfigError("this generator needs a representation to sample", fix=fix)
        return super().filled(batch, rng)

    def nulls(self, n: int) -> Float[Tensor, "n width"]:
        out: Tensor = self.project(self.null)
        return out.expand(n, -1)


class Table(Embedder):
    """An index, looked up; the null also stands for index -1. `std`: of fresh rows; None: PyTorch's normal of std 1."""

    frequencies: Tensor

    def __init__(self, n: int, *, width: int, std: float | None) -> None:
        super().__init__()
        self.table = nn.Embedding(n, width)
        self.null = nn.Parameter(torch.empty(1, width))
        self.register_buffer("frequencies", torch.full((n,), 1.0 / n))
        nn.init.normal_(self.null, std=_STD)
        if std is not None:
            nn.init.normal_(self.table.weight, std=std)

    @abstractmethod
    def index(self, batch: Batch) -> Int[Tensor, " b"]:
        """Row of the table for each example, -1 for none."""

    @abstractmethod
    def given(self, batch: Batch) -> bool:
        """Whether the batch says it."""

    def forward(self, batch: Batch, drop: Bool[Tensor, " b"] | None) -> Float[Tensor, "b width"]:
        return self._lookup(self.index(batch), drop)

    def filled(self, batch: Batch, rng: Rng) -> Float[Tensor, "rows width"]:
        if not self.given(batch):
            return self._lookup(sample_index(self.frequencies, rng), None)
        index, last = self.index(batch), len(self.frequencies) - 1
        if int(index.max()) > last:
            raise ShapeError("index out of range", got=int(index.max()), expected=f"0..{last}, or -1 for the null")
        return self._lookup(index, None)

    def _lookup(self, index: Int[Tensor, " b"], drop: Bool[Tensor, " b"] | None) -> Float[Tensor, "b width"]:
        rows: Tensor = self.table(index.clamp(min=0))
        absent = index < 0 if drop is None else drop | (index < 0)
        return torch.where(absent[:, None], self.null, rows)


class Classes(Table):
    """y. Raises: ConfigError without classes."""

    def __init__(self, n_classes: int | None, *, width: int, std: float | None) -> None:
        if not n_classes:
            fix = "label the collection (metadata.csv or one folder per class), or condition on something else"
            raise ConfigError("a condition is the class, but the collection has no labels", fix=fix)
        super().__init__(n_classes, width=width, std=std)

    def fit(self, rows: Batch, seed: int, *, trained: bool) -> None:  # noqa: ARG002
        frequencies = shares(rows["class"], len(self.frequencies))
        if not bool(frequencies.any()):
            fix = "label some, or condition on something else, e.g. kind: cluster"
            raise ConfigError("a condition is the class, but no training image has a label", fix=fix)
        self.frequencies.copy_(frequencies)

    def given(self, batch: Batch) -> bool:
        return "class" in batch

    def index(self, batch: Batch) -> Int[Tensor, " b"]:
        return batch["class"]


class Clusters(Table):
    """The nearest of the spherical k-means centroids of z."""

    centroids: Tensor

    def __init__(self, config: ClusterConfig, *, width: int, dim: int, std: float | None) -> None:
        super().__init__(config.n_clusters, width=width, std=std)
        self.dim = dim
        self.register_buffer("centroids", torch.zeros(config.n_clusters, dim))

    def fit(self, rows: Batch, seed: int, *, trained: bool) -> None:
        if trained:
            return  # the table's rows mean nothing for other clusters
        z, k = rows["representation"], len(self.centroids)
        if len(z) < k:
            raise ConfigError("more clusters than training images", got=k, fix=f"set n_clusters to at most {len(z)}")
        self.centroids.copy_(spherical_kmeans(z, k, seed=seed))
        self.frequencies.copy_(shares(self.index(rows), k))

    def given(self, batch: Batch) -> bool:
        return "representation" in batch

    def index(self, batch: Batch) -> Int[Tensor, " b"]:
        return (_checked(batch["representation"], self.dim) @ self.centroids.T).argmax(1)


def embedder(config: ConditionConfig, *, width: int, dim: int, n_classes: int | None, std: float | None) -> Embedder:
    """The module of a condition. Raises: ConfigError when the cache has not what it reads."""
    match config:
        case RepresentationConfig():
            return Representation(config, width=width, dim=dim)
        case ClassConfig():
            return Classes(n_classes, width=width, std=std)
        case ClusterConfig():
            return Clusters(config, width=width, dim=dim, std=std)


def _checked(z: Tensor, dim: int) -> Float[Tensor, "b dim"]:
    if z.ndim != 2 or z.shape[1] != dim:
        raise ShapeError("representation of the wrong shape", got=tuple(z.shape), expected=f"(b, {dim})")
    return z
