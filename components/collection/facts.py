"""What collect learns by reading each picture once: a table per chunk, a function of it and the decode recipe."""

import hashlib
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from PIL import Image

from components.collection.duplicates import difference_hash
from components.collection.lock import Entry
from components.collection.source_base import Source, pin_of
from components.errors import DataError
from components.images.config import DecodeRecipe
from components.images.decode import IGNORED_PROFILE, decode

_log = logging.getLogger(__name__)


def facts_schema() -> pa.Schema:
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            pa.field("sha256", pa.string()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("hash", pa.binary(16)),
            pa.field("constant", pa.bool_()),
            pa.field("reject", pa.string()),  # why the picture is unusable; null when it is fine
        ]
    )


def write_facts(path: Path, source: Source, entries: Iterable[Entry], recipe: DecodeRecipe, threads: int) -> None:
    """Read every entry once and write what was found as an Arrow file.

    Raises: DataError naming the first object that vanished or is not what the lock lists.
    """
    with ThreadPoolExecutor(max(1, threads, source.reads_at_once)) as pool:
        rows = list(pool.map(lambda entry: examine(source, entry, recipe), entries))
    table = pa.Table.from_pylist(rows, schema=facts_schema())
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def examine(source: Source, entry: Entry, recipe: DecodeRecipe) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {"key": entry.key, "size": entry.size}
    if entry.size > recipe.max_bytes():
        return row | {"reject": f"{entry.size} bytes, more than a picture of collect.decode.max_pixels takes"}
    data = read_pinned(source, entry)
    row["sha256"] = hashlib.sha256(data).hexdigest()
    try:
        image = decode(data, recipe)
    except DataError as error:
        return row | {"reject": error.what}
    if IGNORED_PROFILE in image.info:
        _log.warning("%s: its color profile is damaged or of another color space, and is ignored", entry.key)
    return row | {
        "width": image.width,
        "height": image.height,
        "hash": difference_hash(image),
        "constant": is_constant(image),
    }


def read_pinned(source: Source, entry: Entry) -> bytes:
    """The object's bytes. Raises: DataError when they are not those that the lock lists."""
    data = source.read(entry.key, entry.locator)
    pin = entry.locator or pin_of(data)
    if len(data) != entry.size or pin != entry.pin:
        raise DataError(
            f"{entry.key} has changed since the snapshot",
            got=f"{len(data)} bytes, {pin}",
            expected=f"{entry.size} bytes, {entry.pin}",
            fix="restore the file, or list the pictures again with `rcg snapshot --rebuild`",
        )
    return data


def is_constant(image: Image.Image) -> bool:
    """Is every pixel equal?"""
    extrema = cast(tuple[tuple[int, int], ...], image.getextrema())  # mode RGB: one pair per band
    return all(low == high for low, high in extrema)
