"""One module per kind of condition: a field of the batch -> a vector, a sequence or an image, or its learned null.

m: elements of a sequence, z: representation, y: class index.
A dropped condition is replaced by the null, which is what classifier-free guidance
(Ho & Salimans, 2207.12598) pushes away from. To add a condition: its config, a class here, and a case in `embedder`.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from components.base import Batch
from components.conditions.base import STD, Embedder, FieldEmbedder, check_shape, check_width, checked
from components.conditions.clustering import spherical_kmeans
from components.conditions.config import (
    ClassConfig,
    ClusterConfig,
    ConditionConfig,
    ImageConfig,
    LowResConfig,
    MaskedImageConfig,
    RepresentationConfig,
    SequenceConfig,
    TextConfig,
    TextTransformerConfig,
    VectorConfig,
)
from components.conditions.frequencies import sample_index, shares
from components.conditions.ports import States
from components.conditions.trained_text import TrainedText
from components.errors import ConfigError, ShapeError
from components.fields import FieldSpec, find_field, mask_name
from components.nn.timestep import sinusoids
from components.rng import Rng
from components.target import KNOWN, LOW_RES, NOISE


class Vector(FieldEmbedder):
    """A vector, mapped to the port's width by a matrix or fed as it is; the null is a learned vector of the field.

    Of the representation z in RCG (2312.03701). Raises: ConfigError for one that is fed as it is into a port of
    another width, or a field that is no vector.
    """

    def __init__(
        self, config: RepresentationConfig | VectorConfig | TextConfig, *, width: int, field: FieldSpec
    ) -> None:
        super().__init__(config)
        check_shape(field, n_axes=1, ragged=False, kind="vector")
        self.dim = field.size
        if not config.project:
            check_width(field.name, self.dim, width, "context_dim")
        self.project = nn.Linear(self.dim, width) if config.project else nn.Identity()
        self.null = nn.Parameter(torch.empty(1, self.dim))
        nn.init.normal_(self.null, std=STD)
        if isinstance(self.project, nn.Linear):
            nn.init.xavier_uniform_(self.project.weight)
            nn.init.zeros_(self.project.bias)

    def forward(self, batch: Batch, drop: Bool[Tensor, " b"] | None) -> Float[Tensor, "b width"]:
        values = checked(self.field, batch[self.field], (self.dim,)).float()
        absent = self.absent(batch, drop)
        out: Tensor = self.project(values if absent is None else torch.where(absent[:, None], self.null, values))
        return out

    def nulls(self, n: int, m: int = 1) -> Float[Tensor, "n width"]:  # noqa: ARG002
        out: Tensor = self.project(self.null)
        return out.expand(n, -1)


class SequenceRows(FieldEmbedder):
    """A sequence of vectors, each mapped to the port's width; the null is one learned row. An empty one is missing.

    Rows that the mask hides are read as zeros. Raises: ConfigError for a field that is no sequence of vectors.
    """

    def __init__(self, config: SequenceConfig | TextConfig, *, width: int, field: FieldSpec) -> None:
        super().__init__(config)
        check_shape(field, n_axes=1, ragged=True, kind="sequence")
        self.dim, self.positions = field.shape[-1], isinstance(config, SequenceConfig) and config.positions
        if not config.project:
            check_width(field.name, self.dim, width, "sequence_dim")
        self.embed = nn.Linear(self.dim, width) if config.project else nn.Identity()
        self.null = nn.Parameter(torch.empty(1, width))
        nn.init.normal_(self.null, std=STD)
        if isinstance(self.embed, nn.Linear):
            nn.init.xavier_uniform_(self.embed.weight)
            nn.init.zeros_(self.embed.bias)

    def forward(self, batch: Batch, drop: Bool[Tensor, " b"] | None) -> States:
        values = batch[self.field]
        checked(self.field, values, (values.shape[1], self.dim))
        m = values.shape[1]
        mask = batch.get(mask_name(self.field))
        mask = values.new_ones(len(values), m, dtype=torch.bool) if mask is None else mask
        rows = self.embed(torch.where(mask[:, :, None], values.float(), 0.0))
        if self.positions:
            rows = rows + sinusoids(torch.arange(m, device=rows.device), rows.shape[2])
        absent = self.absent(batch, drop)
        if absent is None:
            return States(rows, mask)
        alone = torch.arange(m, device=rows.device) < 1
        null = self.nulls(len(rows), m).rows
        return States(torch.where(absent[:, None, None], null, rows), torch.where(absent[:, None], alone, mask))

    def nulls(self, n: int, m: int = 1) -> States:
        rows = nn.functional.pad(self.null, (0, 0, 0, m - 1))
        return States(rows.expand(n, -1, -1), (torch.arange(m, device=rows.device) < 1).expand(n, -1))


class Image(FieldEmbedder):
    """An image, resized to the target's grid; pixels are scaled to [-1, 1]; the null is one learned color.

    Paper: 2105.05233 (ADM-U), where the image of low resolution is resized, too. Raises: ConfigError for a field that
    is no image.
    """

    def __init__(self, config: ImageConfig, *, field: FieldSpec, size: tuple[int, int]) -> None:
        super().__init__(config)
        check_shape(field, n_axes=3, ragged=False, kind="image")
        self.shape, self.size, self.pixels = field.shape, size, field.dtype == "uint8"
        self.null = nn.Parameter(torch.empty(1, field.shape[0], 1, 1))
        nn.init.normal_(self.null, std=STD)

    def forward(self, batch: Batch, drop: Bool[Tensor, " b"] | None) -> Float[Tensor, "b c h w"]:
        x = checked(self.field, batch[self.field], self.shape).float()
        x = x / 127.5 - 1.0 if self.pixels else x
        if self.size != self.shape[1:]:
            x = nn.functional.interpolate(x, self.size, mode="bilinear", antialias=True)
        absent = self.absent(batch, drop)
        return x if absent is None else torch.where(absent[:, None, None, None], self.null, x)

    def nulls(self, n: int, m: int = 1) -> Float[Tensor, "n c h w"]:  # noqa: ARG002
        return self.null.expand(n, -1, *self.size)


class LowRes(Embedder):
    """A small image, noisy, resized to the target's size by bilinear interpolation, and a channel of the noise's level.

    Without a level there is no noise. A dropped image is black, with a level of -1.
    Raises: ConfigError for a field that is no image.
    """

    nothing: Tensor

    def __init__(self, config: LowResConfig, *, field: FieldSpec, size: tuple[int, int]) -> None:
        super().__init__()
        check_shape(field, n_axes=3, ragged=False, kind="low_res")
        self.shape, self.size, self.most = field.shape, size, config.noise
        self.register_buffer("nothing", -torch.ones(1, field.shape[0] + 1, *size), persistent=False)

    def augmented(self, batch: Batch, rng: Rng) -> Batch:
        level = self.most * rng.uniform()
        return {**batch, NOISE: level, LOW_RES: self._noisy(batch, level, rng)}

    def _noisy(self, batch: Batch, level: Float[Tensor, " b"], rng: Rng) -> Float[Tensor, "b c h w"]:
        x = checked(LOW_RES, batch[LOW_RES], self.shape).float() / 127.5 - 1.0
        return x + level[:, None, None, None] * rng.normal(*self.shape)

    def forward(self, batch: Batch, drop: Bool[Tensor, " b"] | None) -> Float[Tensor, "b c h w"]:
        x = nn.functional.interpolate(batch[LOW_RES], self.size, mode="bilinear")
        level = batch[NOISE][:, None, None, None].expand(-1, 1, *self.size)
        seen = torch.cat([x, level], 1)
        return seen if drop is None else torch.where(drop[:, None, None, None], self.nothing, seen)

    def filled(self, batch: Batch, rng: Rng) -> Float[Tensor, "b c h w"]:
        if LOW_RES not in batch:
            raise ConfigError("an upsampler needs a small image", fix="give one")
        level = batch.get(NOISE, torch.zeros(rng.rows, device=batch[LOW_RES].device))
        rows: Tensor = self({LOW_RES: self._noisy(batch, level, rng), NOISE: level}, None)
        return rows

    def nulls(self, n: int, m: int = 1) -> Float[Tensor, "n c h w"]:  # noqa: ARG002
        return self.nothing.expand(n, -1, -1, -1)


class MaskedImage(Embedder):
    """A target as the network sees it, zeros where it is not known, and the mask as one more channel, 1 where it is.

    Nothing is known of a dropped row, and of an absent field: there is no other null. Raises: ConfigError for tokens.
    """

    nothing: Tensor

    def __init__(self, *, target: FieldSpec) -> None:
        super().__init__()
        check_shape(target, n_axes=3, ragged=False, kind="masked_image")
        self.shape, (c, h, w) = target.shape, target.shape
        self.register_buffer("nothing", torch.zeros(1, c + 1, h, w), persistent=False)

    def forward(self, batch: Batch, drop: Bool[Tensor, " b"] | None) -> Float[Tensor, "b c h w"]:
        x, where = checked(KNOWN, batch[KNOWN], self.shape), batch[mask_name(KNOWN)][:, None]
        where = where if drop is None else where & ~drop[:, None, None, None]
        return torch.cat([torch.where(where, x, 0.0), where.to(x.dtype)], 1)

    def filled(self, batch: Batch, rng: Rng) -> Float[Tensor, "b c h w"]:
        rows: Tensor = self(batch, None) if KNOWN in batch else self.nulls(rng.rows)
        return rows

    def nulls(self, n: int, m: int = 1) -> Float[Tensor, "n c h w"]:  # noqa: ARG002
        return self.nothing.expand(n, -1, -1, -1)


class Table(Embedder):
    """An index, looked up; the null also stands for index -1. `std`: of fresh rows; None: PyTorch's normal of std 1."""

    frequencies: Tensor

    def __init__(self, n: int, *, width: int, std: float | None) -> None:
        super().__init__()
        self.table = nn.Embedding(n, width)
        self.null = nn.Parameter(torch.empty(1, width))
        self.register_buffer("frequencies", torch.full((n,), 1.0 / n))
        nn.init.normal_(self.null, std=STD)
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

    def nulls(self, n: int, m: int = 1) -> Float[Tensor, "n width"]:  # noqa: ARG002
        return self.null.expand(n, -1)

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

    def __init__(self, field: FieldSpec, *, width: int, std: float | None) -> None:
        if not field.names:
            fix = "label the collection (metadata.csv or one folder per class), or condition on something else"
            raise ConfigError("a condition is the class, but the collection has no labels", fix=fix)
        super().__init__(len(field.names), width=width, std=std)

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

    def __init__(self, config: ClusterConfig, *, width: int, field: FieldSpec, std: float | None) -> None:
        super().__init__(config.n_clusters, width=width, std=std)
        self.dim = field.size
        self.register_buffer("centroids", torch.zeros(config.n_clusters, self.dim))

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
        return (checked("representation", batch["representation"], (self.dim,)) @ self.centroids.T).argmax(1)


def embedder(
    config: ConditionConfig, fields: Sequence[FieldSpec], *, widths: Sequence[int], std: float | None
) -> Embedder:
    """The module of a condition. `widths`: of its ports. Raises: ConfigError when the cache has not what it reads."""
    width = widths[0]
    if isinstance(config, ClassConfig):
        return Classes(next(field for field in fields if field.name == config.field), width=width, std=std)
    if isinstance(config, MaskedImageConfig):
        return MaskedImage(target=find_field(fields, "target"))
    field = find_field(fields, config.field)
    match config:
        case ClusterConfig():
            return Clusters(config, width=width, field=field, std=std)
        case SequenceConfig() | TextConfig(port="sequence"):
            return SequenceRows(config, width=width, field=field)
        case TextTransformerConfig():
            return TrainedText(config, vector_width=width, sequence_width=widths[1], field=field)
        case RepresentationConfig() | VectorConfig() | TextConfig():
            return Vector(config, width=width, field=field)
        case LowResConfig():
            h, w = find_field(fields, "target").shape[-2:]
            return LowRes(config, field=field, size=(h, w))
        case ImageConfig():
            h, w = find_field(fields, "target").shape[-2:]
            return Image(config, field=field, size=(h, w))
