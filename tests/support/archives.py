"""Pictures and what is said of them, laid down as a folder, a tar, a zip or a Parquet file."""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def pgm(value: int, px: int = 2) -> bytes:
    """A gray picture of one color."""
    return b"P5\n%d %d\n255\n" % (px, px) + bytes([value]) * px * px


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def write_parquet(
    path: Path,
    rows: Sequence[tuple[str | None, bytes | None]],
    more: Mapping[str, Sequence[Any]] | None = None,
    *,
    classes: Sequence[str] | None = None,
    group_rows: int = 3,
    **how: Any,
) -> Path:
    """As Hugging Face's datasets do: `image` of (path, bytes), and columns beside it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    columns = {"image": pa.array([{"bytes": data, "path": name} for name, data in rows], kind)}
    table = pa.table(columns | {name: pa.array(values) for name, values in (more or {}).items()})
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if classes is not None:
        features["label"] = {"names": list(classes), "_type": "ClassLabel"}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group_rows, **how)
    return path
