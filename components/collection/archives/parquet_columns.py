"""Which columns of a Parquet file are what, as Hugging Face's datasets write them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from components.collection.archives.sidecars import LABELS, TEXTS, row_of
from components.errors import DataError


@dataclass(frozen=True)
class Columns:
    """Names of columns. `picture` holds bytes, or a struct of bytes and path; `class_names` are those of label ids."""

    picture: str
    is_struct: bool
    has_path: bool
    label: str | None
    class_names: Sequence[str] | None
    text: str | None
    group: str | None

    @property
    def data(self) -> str:
        """What to read for the bytes alone."""
        return f"{self.picture}.bytes" if self.is_struct else self.picture

    @property
    def path(self) -> str | None:
        return f"{self.picture}.path" if self.has_path else None

    @property
    def said(self) -> list[str]:
        """Columns that say something of a picture."""
        return [name for name in (self.label, self.text, self.group) if name is not None]

    def child(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """`bytes` or `path` of the pictures, null where the picture is."""
        column = batch.column(batch.schema.get_field_index(self.picture))
        if not self.is_struct:
            return column
        return column.flatten()[column.type.get_field_index(name)]  # flatten(): nulls of the struct count

    def rows_said(self, batch: pa.RecordBatch) -> list[dict[str, Any]]:
        """label, text and group of each row, where they are given."""
        of_rows = [{} for _ in range(len(batch))] if not self.said else batch.select(self.said).to_pylist()
        return [self._row(row) for row in of_rows]

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        label = row.get(self.label or "")
        if isinstance(label, int) and self.class_names is not None:
            label = self.class_names[label] if 0 <= label < len(self.class_names) else None  # -1: not labeled
        return row_of({"label": label, "text": row.get(self.text or ""), "group": row.get(self.group or "")})


def find_columns(file: str, schema: pa.Schema) -> Columns:
    """Raises: DataError when there is not exactly one column of pictures."""
    features = _features(schema)
    found = [field for field in schema if _feature(features, field.name).get("_type") == "Image" and _bytes_of(field)]
    found = found or [field for field in schema if pa.types.is_struct(field.type) and _bytes_of(field)]
    found = found or [field for field in schema if _is_bytes(field.type)]
    if len(found) != 1:
        raise DataError(
            f"{file} has {'several columns' if found else 'no column'} of pictures",
            got=", ".join(f"{field.name}: {field.type}" for field in (found or schema)),
            expected="one column of bytes, or of a struct of bytes and path",
            fix="write the file with that column alone",
        )
    (field,) = found
    classes = [name for name, feature in features.items() if isinstance(feature, dict) and "names" in feature]
    label = _first([*LABELS, *classes], schema)
    names = _feature(features, label).get("names") if label else None
    is_struct = pa.types.is_struct(field.type)
    has_path = is_struct and field.type.get_field_index("path") >= 0 and _is_text(field.type.field("path").type)
    named = [str(name) for name in names] if isinstance(names, list) else None
    group = _first(["group"], schema)
    return Columns(field.name, is_struct, has_path, label, named, _first(TEXTS, schema), group)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face's datasets say of the columns; empty where they do not, or it cannot be read."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = info["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _feature(features: dict[str, Any], name: str) -> dict[str, Any]:
    feature = features.get(name)
    return feature if isinstance(feature, dict) else {}


def _first(names: Sequence[str], schema: pa.Schema) -> str | None:
    return next((name for name in names if schema.get_field_index(name) >= 0), None)


def _bytes_of(field: pa.Field) -> bool:
    if pa.types.is_struct(field.type):
        at = field.type.get_field_index("bytes")
        return at >= 0 and _is_bytes(field.type.field(at).type)
    return _is_bytes(field.type)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
