"""One shard of the encode cache: an Arrow file of rows (picture, view) -> representation and target."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from components.target import TargetSpec

ROW_COLUMNS = ("key", "sha256", "split", "label", "caption", "view")


def shard_name(chunk: str) -> str:
    return f"shards/{chunk}.arrow"


def shard_schema(dim: int, spec: TargetSpec) -> pa.Schema:
    """A picture's rows stand together, view 0 first."""
    n = int(np.prod(spec.shape))
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            pa.field("label", pa.string()),
            pa.field("caption", pa.list_(pa.string())),
            pa.field("view", pa.int32(), nullable=False),
            pa.field("representation", pa.list_(pa.float32(), dim), nullable=False),
            pa.field("target", pa.list_(pa.from_numpy_dtype(np.dtype(spec.dtype)), n), nullable=False),
        ]
    )


class ShardWriter:
    """Writes a shard batch by batch, so that it never stands in memory whole."""

    def __init__(self, path: Path, dim: int, spec: TargetSpec) -> None:
        self._schema = shard_schema(dim, spec)
        self._file = pa.ipc.new_file(str(path), self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, rows: Sequence[Mapping[str, Any]], representation: np.ndarray, target: np.ndarray) -> None:
        """Shapes: b rows of ROW_COLUMNS, (b, dim) float32, (b, *shape) in the stored dtype."""
        columns = [pa.array([row[name] for row in rows], self._schema.field(name).type) for name in ROW_COLUMNS]
        for name, values in (("representation", representation), ("target", target)):
            kind = self._schema.field(name).type
            flat = pa.array(np.ascontiguousarray(values).reshape(-1), kind.value_type)
            columns.append(pa.FixedSizeListArray.from_arrays(flat, kind.list_size))
        self._file.write_batch(pa.record_batch(columns, schema=self._schema))
