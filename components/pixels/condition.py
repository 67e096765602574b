"""What a pixel generator is conditioned on, as one vector per image; shared by every pixel generator.

z: representation, y: class index, k: number of clusters. A dropped condition is replaced by a learned null, which is
what classifier-free guidance (Ho & Salimans, 2207.12598) later subtracts.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from components.base import Batch
from components.config import Config
from components.errors import ConfigError, ShapeError
from components.rng import Rng

_KMEANS_STEPS = 100
_KMEANS_STARTS = 4


class ConditionConfig(Config):
    """What the generator is told about the image that it shall make."""

    kind: Literal["representation", "none", "class", "cluster"]
    """representation: RCG; none: the unconditional baseline; class: labels; cluster: k-means of representations."""
    drop_prob: float = Field(ge=0, lt=1)
    """Share of training rows whose condition is replaced by the learned null (0..1); guidance needs more than 0."""
    n_clusters: int = Field(ge=1)
    """Number of k-means clusters; read only when kind is cluster."""

    @classmethod
    def tiny(cls) -> "ConditionConfig":
        return cls(kind="representation", drop_prob=0.1, n_clusters=4)


class Conditioner(nn.Module):
    """Batch -> (b, width) condition vectors, with dropout to a learned null in training.

    `project`: map representations to width by a learned matrix; False feeds them as they are, and width is dim.

    Raises: ConfigError for kind class without classes.
    Differs: the reference's DiT and MAGE know representation and class only; there the null is `fake_latent`.
    """

    centroids: Tensor
    frequencies: Tensor

    def __init__(
        self, config: ConditionConfig, *, width: int, dim: int, n_classes: int | None, project: bool = True
    ) -> None:
        super().__init__()
        self.config, self.dim = config, dim
        match config.kind:
            case "representation":
                self.project = nn.Linear(dim, width) if project else nn.Identity()
                self.null = nn.Parameter(torch.empty(1, dim))
            case "none":
                self.null = nn.Parameter(torch.empty(1, width))
            case "class":
                if not n_classes:
                    fix = "label the collection (metadata.csv or one folder per class), or set condition.kind: cluster"
                    raise ConfigError("condition.kind is class, but the collection has no labels", fix=fix)
                self._add_table(n_classes, width)
            case "cluster":
                self._add_table(config.n_clusters, width)
                self.register_buffer("centroids", torch.zeros(config.n_clusters, dim))
        self.initialize()

    def _add_table(self, n: int, width: int) -> None:
        self.table = nn.Embedding(n, width)
        self.null = nn.Parameter(torch.empty(1, width))
        self.register_buffer("frequencies", torch.full((n,), 1.0 / n))

    def initialize(self) -> None:
        """N(0, 0.02) for tables and nulls as DiT does for labels; Xavier for the projection."""
        nn.init.normal_(self.null, std=0.02)
        if self.config.kind == "representation":
            if isinstance(self.project, nn.Linear):
                nn.init.xavier_uniform_(self.project.weight)
                nn.init.zeros_(self.project.bias)
        elif self.config.kind != "none":
            nn.init.normal_(self.table.weight, std=0.02)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Keys of the batch that training reads and sampling can use."""
        keys = {"representation": ("representation",), "none": (), "class": ("class",), "cluster": ("representation",)}
        return keys[self.config.kind]

    @property
    def required(self) -> tuple[str, ...]:
        """Keys without which sampling is refused; the others can be drawn from the training frequencies."""
        return ("representation",) if self.config.kind == "representation" else ()

    @property
    def can_guide(self) -> bool:
        """Whether the null was trained, so that guidance means something."""
        return self.config.kind != "none" and self.config.drop_prob > 0

    def fit(self, batch: Batch, seed: int) -> None:
        """Centroids and frequencies from all training rows; nothing to do for representation and none.

        Raises: ConfigError when there are fewer rows than clusters, or no labeled row.
        """
        if self.config.kind == "cluster":
            z, k = batch["representation"], self.config.n_clusters
            if len(z) < k:
                fix = f"set condition.n_clusters to at most {len(z)}"
                raise ConfigError("more clusters than training images", got=k, fix=fix)
            self.centroids.copy_(spherical_kmeans(z, k, seed=seed))
            self._count(self._nearest(z))
        elif self.config.kind == "class":
            self._count(batch["class"])

    def _count(self, index: Int[Tensor, " n"]) -> None:
        counts = torch.bincount(index[index >= 0].cpu(), minlength=len(self.frequencies)).double()
        if counts.sum() == 0:
            raise ConfigError(
                "condition.kind is class, but no training image has a label", fix="set condition.kind: cluster"
            )
        self.frequencies.copy_(counts / counts.sum())

    def forward(self, batch: Batch, rng: Rng) -> Float[Tensor, "b width"]:
        """Training: embed the batch's condition; rows drawn with drop_prob, and unlabeled ones, get the null."""
        drop = rng.uniform() < self.config.drop_prob
        match self.config.kind:
            case "none":
                return self.null.expand(len(drop), -1)
            case "representation":
                z = self._checked(batch["representation"])
                return self._linear(torch.where(drop[:, None], self.null, z))
            case "class":
                return self._lookup(batch["class"], drop)
            case "cluster":
                return self._lookup(self._nearest(self._checked(batch["representation"])), drop)

    def for_sampling(self, batch: Batch, rng: Rng) -> Float[Tensor, "rows width"]:
        """Embed the batch's condition without dropout; an absent class or cluster is drawn per row.

        Raises: ConfigError when a representation is needed and absent.
        """
        keep = torch.zeros(rng.rows, dtype=torch.bool, device=self.null.device)
        if self.config.kind == "none":
            return self.null.expand(rng.rows, -1)
        if self.config.kind == "representation":
            if "representation" not in batch:
                fix = "draw one from the RDM, or give real ones (oracle)"
                raise ConfigError("this pixel generator needs a representation to sample", fix=fix)
            return self._linear(self._checked(batch["representation"]))
        if self.conditions[0] not in batch:
            index = self._draw(rng)
        elif self.config.kind == "class":
            index = self._in_range(batch["class"])
        else:
            index = self._nearest(self._checked(batch["representation"]))
        return self._lookup(index, keep)

    def null_for(self, n: int) -> Float[Tensor, "n width"]:
        """The embedding of a dropped condition."""
        null = self._linear(self.null) if self.config.kind == "representation" else self.null
        return null.expand(n, -1)

    def _linear(self, z: Tensor) -> Tensor:
        projected: Tensor = self.project(z)
        return projected

    def _lookup(self, index: Int[Tensor, " b"], drop: Bool[Tensor, " b"]) -> Tensor:
        rows: Tensor = self.table(index.clamp(min=0))
        return torch.where((drop | (index < 0))[:, None], self.null, rows)

    def _draw(self, rng: Rng) -> Int[Tensor, " rows"]:
        """One index per row, distributed as in training."""
        edges = self.frequencies.double().cumsum(0)
        return torch.bucketize(rng.uniform().double() * edges[-1], edges[:-1], right=True)

    def _nearest(self, z: Float[Tensor, "b dim"]) -> Int[Tensor, " b"]:
        return (z @ self.centroids.T).argmax(1)

    def _in_range(self, y: Tensor) -> Tensor:
        if int(y.max()) >= self.table.num_embeddings:
            last = self.table.num_embeddings - 1
            raise ShapeError("class index out of range", got=int(y.max()), expected=f"0..{last}, or -1 for the null")
        return y

    def _checked(self, z: Tensor) -> Tensor:
        if z.ndim != 2 or z.shape[1] != self.dim:
            raise ShapeError("representation of the wrong shape", got=tuple(z.shape), expected=f"(b, {self.dim})")
        return z


def spherical_kmeans(z: Float[Tensor, "n dim"], k: int, *, seed: int) -> Float[Tensor, "k dim"]:
    """Unit centroids that maximize the summed cosine to their rows; the best of a few seeded k-means++ starts.

    Paper: Dhillon & Modha 2001 (spherical k-means); Arthur & Vassilvitskii 2007 (the seeding).
    """
    unit = nn.functional.normalize(z.detach().double().cpu(), dim=1)
    generator = torch.Generator().manual_seed(seed)
    best, best_score = unit[:k], -float("inf")
    for _ in range(_KMEANS_STARTS):
        centroids = _lloyd(unit, _plus_plus(unit, k, generator))
        score = float((unit @ centroids.T).amax(1).sum())
        if score > best_score:
            best, best_score = centroids, score
    return best.to(z.dtype)


def _plus_plus(unit: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k rows, each drawn in proportion to its distance (1 - cosine) to those already taken."""
    picked = [int(torch.randint(len(unit), (1,), generator=generator))]
    distance = torch.full((len(unit),), float("inf"), dtype=unit.dtype)
    for _ in range(k - 1):
        distance = torch.minimum(distance, (1 - unit @ unit[picked[-1]]).clamp(min=0))
        weight = distance if float(distance.sum()) > 0 else torch.ones_like(distance)
        picked.append(int(torch.multinomial(weight, 1, generator=generator)))
    return unit[picked]


def _lloyd(unit: Tensor, centroids: Tensor) -> Tensor:
    owner = torch.full((len(unit),), -1)
    for _ in range(_KMEANS_STEPS):
        nearest = (unit @ centroids.T).argmax(1)
        if torch.equal(nearest, owner):
            break
        owner = nearest
        sums = torch.zeros_like(centroids).index_add_(0, owner, unit)
        empty = sums.norm(dim=1) == 0  # an empty cluster keeps its centroid
        centroids = torch.where(empty[:, None], centroids, nn.functional.normalize(sums, dim=1))
    return centroids
