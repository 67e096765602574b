"""Stage encode: every view of every picture once through encoder and codec; what the generators train on."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.base import Batch, Metrics
from components.cache.config import LARGE_BYTES
from components.cache.memo_keys import shard_key
from components.cache.reader import Cache, CacheInfo, CacheSplit, cache_fields
from components.cache.shards import ShardWriter, shard_name
from components.codecs.base import load_codec
from components.collection.images import ImageIndex, index_name, open_pixels, read_table
from components.collection.splits import LEFT_OUT
from components.encoders.base import constant_rows, load_encoder
from components.errors import ArtifactError, DataError
from components.fields import FieldSpec
from components.images.config import ViewRecipe
from components.images.pictures import png_bytes, rows_grid, to_float, to_uint8
from components.images.views import PLAIN, View, random_views, render
from components.spacing import evenly_spaced
from components.text import load_text
from components.text.base import tidy
from components.training.distributed import share_out
from components.training.worker import Worker
from flows.identity.artifact import Inputs, Output
from flows.stages.encode.params import EncodeParams

Row = dict[str, Any]

_COLUMNS = {"key": "key", "sha256": "sha256", "split": "split", "class": "label", "caption": "caption"}
"""Columns of a row of the cache -> those of the collection."""
_SHOWN = 5
_N_STATISTICS = 2048
_N_PICTURES, _N_SHOWN_VIEWS = 16, 4


def run(params: EncodeParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Raises: DataError naming the pictures, ArtifactError when codec output is not finite."""
    shards = _Shards(params, inputs, out, worker)
    share_out(worker, shards.chunks, shards.ensure)
    if worker.rank != 0:
        return {}
    return _finish(params, shards, out)


class _Shards:
    """One memoised shard per chunk of the collection."""

    def __init__(self, params: EncodeParams, inputs: Inputs, out: Output, worker: Worker) -> None:
        self.collect, self.out = inputs["collect"], out
        self.listing = self.collect.read_json("collection.json")
        self.chunks: list[str] = [chunk["name"] for chunk in self.listing["chunks"]]
        self.pixels = open_pixels(self.listing, inputs.source, worker.threads, 0)
        self.models = _Models(inputs, worker.device)
        self.params = params
        self._parents = {stage: inputs[stage].digest for stage in ("encoder", "codec", "text") if stage in inputs}

    def index(self, chunk: str) -> ImageIndex:
        """The pictures of one chunk."""
        return ImageIndex(read_table([self.collect.path(index_name(chunk))]), self.pixels, self.listing["classes"])

    @cached_property
    def fields(self) -> tuple[FieldSpec, ...]:
        """What a row of the cache holds."""
        more = () if self.models.text is None else self.models.text.fields
        return cache_fields(self.models.encoder.dim, self.models.codec.spec, self.listing["classes"], more)

    def ensure(self, chunk: str) -> None:
        """Make the shard unless it was ever made."""
        self.out.memoised(shard_name(chunk), self._key(chunk), lambda path: self._make(chunk, path))

    def path(self, chunk: str) -> Path:
        return self.out.path(shard_name(chunk))

    def _key(self, chunk: str) -> str:
        pictures = self.collect.manifest.files[index_name(chunk)].sha256
        params = self.params.model_dump(mode="json")
        return shard_key(params, pictures=pictures, decode=self.listing["decode"], **self._parents)

    def _make(self, chunk: str, path: Path) -> None:
        index, models, recipe = self.index(chunk), self.models, self.params.views
        with ShardWriter(path, self.fields) as writer:
            for group in _groups(index, max(1, self.params.batch_size // recipe.n_views)):
                views = _views(recipe, group)
                for_codec, for_encoder = models.render(index, [row["position"] for row in group], views)
                representation, target = models.encode(for_codec, for_encoder)
                rows = [row | {"view": i} for row, its in zip(group, views, strict=True) for i in range(len(its))]
                keep = _usable(rows, representation, target)
                kept = [rows[i] for i in keep]
                values = models.captions(kept)
                writer.add(kept, {"representation": representation[keep], "target": target[keep], **values})


def _groups(index: ImageIndex, size: int) -> Iterator[list[Row]]:
    """The pictures that are in a split, with their position in the index."""
    columns = {name: index.column(column) for name, column in _COLUMNS.items()}
    kept = [i for i, split in enumerate(columns["split"]) if split != LEFT_OUT]
    rows = [{"position": i, **{name: values[i] for name, values in columns.items()}} for i in kept]
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _views(recipe: ViewRecipe, rows: Sequence[Row]) -> list[list[View]]:
    """Random views of train pictures; the plain one of those held out."""
    trained = random_views(recipe, [row["sha256"] for row in rows])
    return [views if row["split"] == "train" else [PLAIN] for row, views in zip(rows, trained, strict=True)]


class _Models:
    """Encoder and codec on the device, and pixels as they want them."""

    def __init__(self, inputs: Inputs, device: torch.device) -> None:
        self.encoder = load_encoder(inputs["encoder"]).to(device)
        self.codec = load_codec(inputs["codec"]).to(device)
        self.text = load_text(inputs["text"]).to(device) if "text" in inputs else None
        self.device = device
        self.codec_px = self.codec.spec.image_px
        self.encoder_px = max(self.codec_px, self.encoder.input_px)

    def render(
        self, index: ImageIndex, positions: Sequence[int], views: Sequence[Sequence[View]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same views for the codec and for the encoder: the same array, unless the encoder wants more pixels.

        Shapes: (b, px, px, 3) uint8 each, a picture's views together.
        """
        sizes = sorted({self.codec_px, self.encoder_px})

        def cut(i: int, image: Any) -> list[list[np.ndarray]]:
            return [[render(image, view, px) for view in views[i]] for px in sizes]

        pictures = index.each(positions, cut)
        by_size = [np.stack([view for picture in pictures for view in picture[n]]) for n in range(len(sizes))]
        return by_size[0], by_size[-1]

    @torch.no_grad()
    def encode(self, for_codec: np.ndarray, for_encoder: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shapes: -> (b, dim) float32, (b, *target) in the stored dtype."""
        images = to_float(for_codec).to(self.device)
        target = self.codec.encode(images)
        z = self.encoder(images if for_encoder is for_codec else to_float(for_encoder).to(self.device))
        return z.cpu().numpy(), target.cpu().numpy()

    def captions(self, rows: Sequence[Row]) -> dict[str, list[np.ndarray | None]]:
        """Fields of the captions of each picture, at its first view; none without a text encoder.

        Shapes: n rows -> for each field n arrays of (captions, *shape), or None.
        """
        if self.text is None:
            return {}
        given = [[c for c in map(tidy, row["caption"] or ()) if c] if row["view"] == 0 else [] for row in rows]
        made = self.text.rows([caption for its in given for caption in its])
        ends = np.cumsum([len(its) for its in given])
        found: dict[str, list[np.ndarray | None]] = {}
        for field in self.text.fields:
            parts = np.split(made[field.name].numpy(), ends[:-1])
            found[field.name] = [part if len(part) else None for part in parts]
        return found


def _usable(rows: Sequence[Row], representation: np.ndarray, target: np.ndarray) -> list[int]:
    """Rows of the pictures all of whose representations have variance."""
    broken = [rows[i]["key"] for i, values in enumerate(target) if not np.isfinite(values).all()]
    if broken:
        raise ArtifactError("the codec made values that are not finite", got=broken[0], fix="train the codec again")
    constant = {rows[i]["key"] for i in constant_rows(torch.from_numpy(representation)).tolist()}
    return [i for i, row in enumerate(rows) if row["key"] not in constant]


def _finish(params: EncodeParams, shards: _Shards, out: Output) -> Metrics:
    """Rank 0: name what is missing, list the shards, measure."""
    n_rejected = _check_rejects(params, shards, out)
    info = CacheInfo(
        fields=shards.fields,
        target=shards.models.codec.spec,
        n_views=params.views.n_views,
        counts={},
        chunks=shards.chunks,
    )
    paths = [shards.path(chunk) for chunk in shards.chunks]
    cache = Cache(info, paths, ram_bytes=0)  # only samples are read
    parts = {"train": cache.training(), "val": cache.held_out("val"), "test": cache.held_out("test")}
    counts = {name: len(part) for name, part in parts.items()}
    known: dict[str, Any] = {"counts": counts}
    if sum(path.stat().st_size for path in paths) > LARGE_BYTES:
        known["shards"] = tuple(Cache(info, [path], ram_bytes=0).count() for path in paths)
    out.write_json("cache.json", info.model_copy(update=known).model_dump(mode="json"))
    _draw_views(parts["train"], shards, params.views.n_views, out)
    return {
        **counts,
        "rejected": n_rejected,
        **_representation_metrics(
            parts["train"], params.views.n_views, scaled=shards.models.encoder.reduction is not None
        ),
        "reconstruction_mse": _draw_reconstructions(parts["val"], shards, out),
    }


def _check_rejects(params: EncodeParams, shards: _Shards, out: Output) -> int:
    """Name and count the pictures that their shard lacks. Raises: DataError when they are too many."""
    rejected: list[str] = []
    n_pictures = 0
    for chunk in shards.chunks:
        index = shards.index(chunk)
        expected = [key for key, split in zip(index.keys, index.column("split"), strict=True) if split != LEFT_OUT]
        present = set(read_table([shards.path(chunk)])["key"].to_pylist())
        rejected += [key for key in expected if key not in present]
        n_pictures += len(expected)
    if len(rejected) > params.max_reject_share * n_pictures:
        raise DataError(
            f"{len(rejected)} of {n_pictures} pictures have a representation without variance",
            got=", ".join(rejected[:_SHOWN]) + (", …" if len(rejected) > _SHOWN else ""),
            expected=f"at most {params.max_reject_share:.1%}",
            fix="remove them (are they of one color?) and `rcg snapshot --rebuild`, or raise encode.max_reject_share",
        )
    why = "its representation has no variance"
    out.write_json("rejects.json", {"rejected": [{"key": key, "why": why} for key in rejected]})
    return len(rejected)


def _representation_metrics(train: CacheSplit, n_views: int, *, scaled: bool) -> Metrics:
    """Spread of the plain views' representations over the collection, and how alike two views of a picture are.

    `scaled`: rows are not all of one length, as reduced ones are.

    participation_ratio: (sum of the covariance's eigenvalues)^2 / sum of their squares; 1 … dim.
    """
    sample = evenly_spaced(len(train), _N_STATISTICS)
    z = train.rows(sample)["representation"].double().numpy()
    n, dim = z.shape
    covariance = np.cov(z, rowvar=False) if n > 1 else np.eye(dim)
    z = _of_one_length(z) if scaled else z
    total = z.sum(0)
    pairs = (total @ total - (z * z).sum()) / (n * (n - 1)) if n > 1 else 0.0
    metrics = {
        "mean_cosine": float(pairs / (dim - 1)),  # every squared norm is dim - 1
        "participation_ratio": float(np.trace(covariance) ** 2 / (covariance**2).sum()),
    }
    if n_views > 1:
        other = train.rows(sample, view=1)["representation"].double().numpy()
        other = _of_one_length(other) if scaled else other
        metrics["view_cosine"] = float((z * other).sum(1).mean() / (dim - 1))
    return {name: float(f"{value:.9g}") for name, value in metrics.items()}  # BLAS's threads move the digits beyond


def _of_one_length(z: np.ndarray) -> np.ndarray:
    """Rows as long as standardized ones are: the square root of dim - 1."""
    lengths = np.linalg.norm(z, axis=1, keepdims=True)
    scaled: np.ndarray = z * (np.sqrt(z.shape[1] - 1) / np.maximum(lengths, 1e-12))
    return scaled


def _draw_reconstructions(part: CacheSplit, shards: _Shards, out: Output) -> float:
    """Held-out pictures above what the codec makes of them; returns the mean squared error, for RGB in [0, 1]."""
    chosen = evenly_spaced(len(part), _N_STATISTICS // 32)
    wanted = part.keys(chosen)
    pixels = _plain_views(wanted, shards)
    decoded = _decode(part.rows(chosen), shards)
    error = np.mean((pixels / 255 - decoded / 255) ** 2)
    out.write_bytes("pictures/reconstructions.png", png_bytes(rows_grid([pixels[:_N_PICTURES], decoded[:_N_PICTURES]])))
    return float(error)


def _plain_views(keys: Sequence[str], shards: _Shards) -> np.ndarray:
    found: dict[str, np.ndarray] = {}
    wanted = set(keys)
    for chunk in shards.chunks:
        index = shards.index(chunk)
        positions = [i for i, key in enumerate(index.keys) if key in wanted]
        loaded = index.load(positions, shards.models.codec_px)
        found |= {index.keys[i]: image for i, image in zip(positions, loaded, strict=True)}
    return np.stack([found[key] for key in keys])


def _decode(batch: Batch, shards: _Shards) -> np.ndarray:
    """Shapes: -> (b, px, px, 3) uint8."""
    with torch.no_grad():
        return to_uint8(shards.models.codec.decode(batch["target"].to(shards.models.device)))


def _draw_views(train: CacheSplit, shards: _Shards, n_views: int, out: Output) -> None:
    """Train pictures, each above its random views, as the codec gives them back."""
    chosen = evenly_spaced(len(train), _N_PICTURES)
    views = range(min(n_views, _N_SHOWN_VIEWS))
    shown = [_decode(train.rows(chosen, view), shards) for view in views]
    out.write_bytes("pictures/views.png", png_bytes(rows_grid(shown)))
