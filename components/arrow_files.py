"""Arrow files: read whole or not at all, whoever wrote them.

A file is its batches one after another, and a footer that says where they are. They are read in their order, after a
look at each: a compressed buffer may unpack to any size, and nothing here writes one.
"""

import struct
from pathlib import Path

import pyarrow as pa

from components.errors import ArtifactError

_PREFIX = 8
"""Bytes before the first message."""
_HEADER, _DATA, _COMPRESSION = 2, 1, 3
"""Places of fields: of a message its header; of a dictionary its data, which are a batch; of a batch its compression.
Source: Message.fbs of Arrow's format."""


def read_arrow(file: Path | bytes, name: str) -> pa.Table:
    """The table of an Arrow file, memory-mapped where it is a path. Raises: ArtifactError for a damaged one.

    Every offset in it is looked at: a wrong one leads outside of the file, and ends the process at its first use.
    """
    try:
        whole = pa.memory_map(str(file)).read_buffer() if isinstance(file, Path) else pa.py_buffer(file)
        _look(whole.slice(_PREFIX), pa.ipc.open_file(whole).num_record_batches)
        table = pa.ipc.open_stream(whole.slice(_PREFIX)).read_all()
        table.validate(full=True)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, struct.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArtifactError(
            f"{name} is no whole Arrow file", got=error, fix="run the stage that made it again, or copy it again"
        ) from error
    return table


def _look(messages: pa.Buffer, n_batches: int) -> None:
    """Raises: ValueError for a compressed batch, or another number of them than the footer has; struct.error."""
    found = 0
    for message in pa.ipc.MessageReader.open_stream(messages):
        found += message.type == "record batch"
        if message.type not in ("record batch", "dictionary"):
            continue
        header = memoryview(message.metadata)
        batch = _child(header, int(struct.unpack_from("<I", header)[0]), _HEADER)
        if message.type == "dictionary":
            batch = _child(header, batch, _DATA)
        if _field(header, batch, _COMPRESSION):
            raise ValueError("its batches are compressed, which those of this project never are")
    if found != n_batches:
        raise ValueError(f"it holds {found} of the {n_batches} batches of its footer")


def _field(flat: memoryview, table: int, place: int) -> int:
    """Where a field of a table of FlatBuffers is; 0 where it is left out."""
    layout = table - int(struct.unpack_from("<i", flat, table)[0])
    size, at = struct.unpack_from("<H", flat, layout)[0], 4 + 2 * place
    offset = int(struct.unpack_from("<H", flat, layout + at)[0]) if at < size else 0
    return table + offset if offset else 0


def _child(flat: memoryview, table: int, place: int) -> int:
    """The table that a field points to."""
    at = _field(flat, table, place)
    return at + int(struct.unpack_from("<I", flat, at)[0])


def check_schema(table: pa.Table, wanted: pa.Schema, name: str, *, but: frozenset[str] = frozenset()) -> None:
    """Raises: ArtifactError naming the columns that are not as wanted; those of `but` may be of any type."""
    found = {field.name: field for field in table.schema}
    wrong = [
        field.name
        for field in wanted
        if field.name not in found or (field.name not in but and found[field.name].type != field.type)
    ]
    if wrong:
        raise ArtifactError(
            f"{name} has other columns",
            got="; ".join(f"{one}: {found[one].type if one in found else 'no such column'}" for one in wrong),
            expected="; ".join(f"{one}: {wanted.field(one).type}" for one in wrong),
            fix="run the stage that made it again",
        )
