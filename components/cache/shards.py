"""One shard of the encode cache: an Arrow file of rows (picture, view), with a column for each field."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from components.arrow_files import read_arrow
from components.errors import ArtifactError, ShapeError
from components.fields import FieldSpec

ROW_COLUMNS = {"key": pa.string(), "sha256": pa.string(), "split": pa.string(), "view": pa.int32()}
"""What a row is of. Fields come after."""


def shard_name(chunk: str) -> str:
    return f"shards/{chunk}.arrow"


def shard_schema(fields: Sequence[FieldSpec]) -> pa.Schema:
    """A picture's rows stand together, view 0 first."""
    rows = [pa.field(name, kind, nullable=False) for name, kind in ROW_COLUMNS.items()]
    return pa.schema(rows + [pa.field(field.name, _kind(field), nullable=field.nullable) for field in fields])


def open_shard(path: Path, fields: Sequence[FieldSpec]) -> pa.Table:
    """A shard, memory-mapped. Raises: ArtifactError; it names the columns that are not as the fields say."""
    table = read_arrow(path, path.name)
    wanted = shard_schema(fields)
    if table.schema.equals(wanted):
        return table
    names = [
        name
        for name in {**dict.fromkeys(wanted.names), **dict.fromkeys(table.schema.names)}
        if _column(table.schema, name) != _column(wanted, name)
    ]
    raise ArtifactError(
        f"the shard {path.name} does not match the fields of its cache",
        got="; ".join(f"{name}: {_column(table.schema, name)}" for name in names) or "columns in another order",
        expected="; ".join(f"{name}: {_column(wanted, name)}" for name in names) or ", ".join(wanted.names),
        fix="make the cache again with `rcg run encode`",
    )


def _column(schema: pa.Schema, name: str) -> str:
    if name not in schema.names:
        return "no such column"
    field = schema.field(name)
    return f"{field.type}{'' if field.nullable else ' not null'}"


class ShardWriter:
    """Writes a shard batch by batch, so that it never stands in memory whole."""

    def __init__(self, path: Path, fields: Sequence[FieldSpec]) -> None:
        self._fields, self._schema = fields, shard_schema(fields)
        self._file = pa.ipc.new_file(str(path), self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, rows: Sequence[Mapping[str, Any]], values: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
        """Add b rows. `values`: of every field with numbers; `rows` say the rest: ROW_COLUMNS and the fields of text.

        Shapes: (b, *shape) in the stored dtype; where some are missing, or ragged, a list of b arrays or None, ragged
        ones of (m_i, *shape). Raises: ShapeError naming the field.
        """
        columns = [pa.array([row[name] for row in rows], kind) for name, kind in ROW_COLUMNS.items()]
        for field in self._fields:
            of_rows = [row[field.name] for row in rows] if field.is_text else values[field.name]
            columns.append(_array(field, of_rows, len(rows)))
        self._file.write_batch(pa.record_batch(columns, schema=self._schema))


def _kind(field: FieldSpec) -> pa.DataType:
    kind = pa.string() if field.is_text else pa.from_numpy_dtype(np.dtype(field.dtype))
    kind = pa.list_(kind, field.size) if field.shape else kind
    return pa.list_(kind) if field.ragged else kind


def _array(field: FieldSpec, values: Sequence[Any] | np.ndarray, n: int) -> pa.Array:
    """Raises: ShapeError for values that are not as the field says."""
    missing = [] if isinstance(values, np.ndarray) else [value is None for value in values]
    if len(values) != n or (any(missing) and not field.nullable):
        got = f"{len(values)} values, {sum(missing)} of them missing"
        raise ShapeError(f"the field {field.name} needs a value for every row", got=got, expected=n)
    if field.is_text:
        return pa.array(values, _kind(field))
    mask = np.array(missing) if any(missing) else None
    if isinstance(values, np.ndarray) and not field.ragged:
        return _fixed(field, _checked(field, values, values.shape[1:]), mask)
    nothing = np.zeros((0, *field.shape) if field.ragged else field.shape, field.dtype)
    parts = [nothing if value is None else _checked(field, value, value.shape[field.ragged :]) for value in values]
    if not field.ragged:
        return _fixed(field, np.stack([*parts]) if parts else nothing[None][:0], mask)
    offsets = pa.array(np.cumsum([0, *map(len, parts)]), pa.int32())
    elements = _fixed(field, np.concatenate([nothing, *parts]), None)
    return pa.ListArray.from_arrays(offsets, elements, mask=None if mask is None else pa.array(mask))


def _checked(field: FieldSpec, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if shape != field.shape or values.dtype != field.dtype:
        raise ShapeError(
            f"values that are not as the field {field.name} says",
            got=f"{values.dtype} {shape}",
            expected=f"{field.dtype} {field.shape}",
        )
    return values


def _fixed(field: FieldSpec, values: np.ndarray, mask: np.ndarray | None) -> pa.Array:
    """Values or elements of one shape. Shapes: values (n, *shape); mask (n,) bool, True where there is none."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if not field.shape:
        return pa.array(flat, mask=mask)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), field.size, mask=None if mask is None else pa.array(mask))
