"""How the collection grew, and how unlike the old pictures the new ones are in the eyes of the encoder."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.arrow_files import read_arrow
from components.errors import ArtifactError
from components.spacing import evenly_spaced
from components.store.base import Store
from flows.lineage.story import open_run
from flows.runs.ancestry import Facts
from flows.runs.records import CommittedRun, read_json_file
from flows.runs.stored import StoredArtifact

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_ROWS, _N_CLUSTERS, _PER_CLUSTER = 2048, 6, 8


@dataclass(frozen=True)
class Cluster:
    """Like pictures of the newest chunk: how many, and some of them as PNG."""

    count: int
    png: bytes


@dataclass(frozen=True)
class Growth:
    """Chunks in the order in which they came."""

    counts: Mapping[str, int]
    base: Sequence[str]
    """Chunks that encoder and codec were fitted on."""
    drift: Mapping[str, float]
    """Chunk beyond the base -> Frechet distance of its representations to the base's, over that between halves of the
    base: about 1 when nothing changed."""
    clusters: Sequence[Cluster]
    """Of the newest chunk."""

    @property
    def later(self) -> Mapping[str, int]:
        """Pictures by chunk beyond the base."""
        return {name: n for name, n in self.counts.items() if name not in self.base}


def read_growth(store: Store, stages: Mapping[str, Facts]) -> Growth | None:
    """What the store still knows of the collection behind a version; None when its collect run has left the store."""
    collect, encode = open_run(store, stages.get("collect")), open_run(store, stages.get("encode"))
    if collect is None:
        return None
    counts, base = (
        {chunk["name"]: int(chunk["count"]) for chunk in read_json_file(store, collect, name)["chunks"]}
        for name in ("collection.json", "base.json")
    )
    if encode is None or not counts or any(f"shards/{name}.arrow" not in encode.keys for name in counts):
        return Growth(counts, list(base), {}, [])
    with tempfile.TemporaryDirectory(prefix="rcg-report-", ignore_cleanup_errors=True) as scratch:
        artifact, later = StoredArtifact(store, encode, Path(scratch)), [name for name in counts if name not in base]
        codec = open_run(store, stages.get("codec"))
        try:
            drift = _drift(artifact, list(base), later)
            clusters = [] if codec is None else _clusters(store, artifact, codec, list(counts)[-1], Path(scratch))
        except ArtifactError:  # a shard was erased, with a picture that it held
            return Growth(counts, list(base), {}, [])
    return Growth(counts, list(base), drift, clusters)


def _plain(artifact: StoredArtifact, chunk: str) -> "pa.Table":
    """Rows of the plain views of a chunk, thinned evenly."""
    table = read_arrow(artifact.path(f"shards/{chunk}.arrow"), f"shards/{chunk}.arrow")
    rows = np.flatnonzero(table["view"].to_numpy() == 0)
    return table.take(rows[evenly_spaced(len(rows), _MOST_ROWS)])


def _stacked(table: "pa.Table", column: str) -> np.ndarray:
    found: np.ndarray = np.stack(table[column].to_numpy(zero_copy_only=False))
    return found


def _drift(artifact: StoredArtifact, base: Sequence[str], later: Sequence[str]) -> dict[str, float]:
    from components.metrics.drift import frechet_ratio

    if not later:
        return {}
    old = np.concatenate([_stacked(_plain(artifact, name), "representation") for name in base])
    found = {name: frechet_ratio(_stacked(_plain(artifact, name), "representation"), old) for name in later}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _clusters(store: Store, artifact: StoredArtifact, codec: CommittedRun, chunk: str, scratch: Path) -> list[Cluster]:
    """Pictures of a chunk by likeness, the biggest cluster first; as the codec gives them back."""
    import torch
    from torch import Tensor

    from components.codecs.base import load_codec
    from components.conditions.clustering import clusters
    from components.images.pictures import grid, png_bytes, to_uint8

    table = _plain(artifact, chunk)
    if len(table) < _N_CLUSTERS:
        return []
    near = clusters(torch.from_numpy(_stacked(table, "representation")), _N_CLUSTERS, seed=0)
    decoder = load_codec(StoredArtifact(store, codec, scratch / "codec"))
    shape = decoder.spec.shape
    found = []
    for rows in map(Tensor.numpy, near):
        targets = _stacked(table.take(rows[:_PER_CLUSTER]), "target").reshape(-1, *shape)
        with torch.inference_mode():
            images: Any = to_uint8(decoder.decode(torch.from_numpy(targets.copy())))
        found.append(Cluster(len(rows), png_bytes(grid(images, columns=_PER_CLUSTER // 2))))
    return sorted(found, key=lambda cluster: -cluster.count)
