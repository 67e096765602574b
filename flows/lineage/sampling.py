"""A grid and single pictures sampled from a bundle, each with its provenance in the file's metadata."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from components.bundle.provenance import Provenance, read_provenance, with_provenance
from components.bundle.request import Picture, Request
from components.documents import read_bytes
from components.errors import ArtifactError, ConfigError, DataError, MissingError
from components.files import write_whole
from flows.execution.project import Project
from flows.executors.base import pick_device
from flows.registry import resolve

_log = logging.getLogger(__name__)
_NUMBERED = re.compile(r"[0-9]{4,}\.png")

PROMPTS = "prompts.png"
"""The grid with each text under its row. Not in the provenance: fonts differ between systems."""
_COLUMNS = 16
SHOWN = 256
"""Pictures on the grid, the first ones: what is held in memory however many are drawn."""


def write_samples(
    request: Request,
    project: Project,
    *,
    model: str,
    out: Path,
    nearest: int | None = None,
    npz: Path | None = None,
    on_written: Callable[[int], None] = lambda _: None,
) -> None:
    """Write 0000.png … to `out` as they are drawn, then grid.png of the first ones, prompts.png where texts
    were given, nearest.png and `npz` if asked for.

    Pictures that an earlier call wrote for the same request are kept; those of another that stay beside are warned of.
    `on_written` hears how many are there.

    Raises: ConfigError for a request that the model cannot answer, DataError for an unreadable picture, ArtifactError
    for a folder that is no model.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError("--out is not a folder", got=out, fix="name a folder")
    folder = resolve(model, project.tracking, project.models)
    from components.bundle.bundle import Bundle
    from components.images.npz import write_npz
    from components.images.pictures import grid, png_bytes, to_uint8
    from flows.lineage.verification import shown_pixels

    bundle = Bundle.load(folder, device=pick_device(project.settings.worker.device).type)
    system, provenance, n_shown = bundle.system, bundle.provenance(request), min(request.n, SHOWN)
    draw = system.sampler(request)
    beside, drawn = None, dict[range, np.ndarray]()
    if nearest is not None:
        from flows.lineage.nearest import nearest_sheet

        drawn = {here: to_uint8(system.images(draw(here))) for here in system.split(request, range(n_shown))}
        beside = nearest_sheet(bundle, np.concatenate([*drawn.values()])[:n_shown], nearest, project)
    shown: list[np.ndarray] = []
    for here in system.split(request):
        claims = {i: provenance.model_copy(update={"index": request.first + i}) for i in here}
        if not all(_is_written(_path(out, i), claim) for i, claim in claims.items()):
            images = drawn[here] if here in drawn else to_uint8(system.images(draw(here)))
            for (i, claim), image in zip(claims.items(), images, strict=True):
                _write(_path(out, i), image, claim)
        shown += [shown_pixels(_path(out, i).read_bytes()) for i in here if i < n_shown]
        on_written(here.stop)
    row = request.n // len(request.text) if len(request.text) > 1 else request.n if request.is_path else None
    columns = row if row is not None and row <= _COLUMNS else None
    sheet = provenance.model_copy(update={"shown": n_shown, "columns": columns})
    _write(out / "grid.png", grid(np.stack(shown), columns=columns), sheet)
    if request.text:
        write_whole(out / PROMPTS, png_bytes(_prompts(request, shown)))
    if beside is not None:
        write_whole(out / "nearest.png", png_bytes(beside))
    _warn_of_others(out, request.n)
    if npz is not None:
        write_npz(npz, request.n, (shown_pixels(_path(out, i).read_bytes()) for i in range(request.n)))


def _warn_of_others(out: Path, n: int) -> None:
    with os.scandir(out) as found:
        numbers = (int(file.name[:-4]) for file in found if _NUMBERED.fullmatch(file.name))
        others = [number for number in numbers if number >= n]
    if others:
        what = "%d pictures of another request lie in %s, from %s on: remove them, or name another folder"
        _log.warning(what, len(others), out, _path(out, min(others)).name)


def _prompts(request: Request, shown: list[np.ndarray]) -> np.ndarray:
    """The pictures of the grid in a row for each text, which stands under it."""
    from components.images.captioned import captioned_rows

    n = request.n // len(request.text)
    rows = [(text, shown[i * n : (i + 1) * n]) for i, text in enumerate(request.text)]
    return captioned_rows([(text, np.stack(images)) for text, images in rows if images], columns=min(n, _COLUMNS))


def _path(out: Path, position: int) -> Path:
    return out / f"{position:04d}.png"


def _is_written(path: Path, claim: Provenance) -> bool:
    """Whether the file is whole and says that it is what would be written."""
    try:
        return path.is_file() and read_provenance(path.read_bytes()) == claim
    except (DataError, ArtifactError):
        return False


def open_picture(path: Path) -> Picture:
    """A given picture's file. Raises: MissingError, DataError."""
    if not path.is_file():
        raise MissingError("there is no such picture", got=path)
    return Picture(read_bytes(path, DataError), str(path))


def _write(path: Path, image: np.ndarray, provenance: Provenance) -> None:
    """A PNG with its provenance; there under its name only when it is whole."""
    from components.images.pictures import png_bytes

    write_whole(path, with_provenance(png_bytes(image), provenance))
