"""Arrow files: read whole or not at all, whoever wrote them."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from components.errors import ArtifactError


def read_arrow(file: Path | bytes, name: str) -> pa.Table:
    """The table of an Arrow file, memory-mapped where it is a path. Raises: ArtifactError for a damaged one.

    Every offset in it is looked at: a wrong one leads outside of the file, and ends the process at its first use.
    """
    try:
        source: Any = pa.memory_map(str(file)) if isinstance(file, Path) else pa.BufferReader(file)
        table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArtifactError(
            f"{name} is no whole Arrow file", got=error, fix="run the stage that made it again, or copy it again"
        ) from error
    return table


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
