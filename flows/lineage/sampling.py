"""A grid and single pictures sampled from a bundle, each with its provenance in the file's metadata."""

from pathlib import Path
from typing import TYPE_CHECKING

from components.bundle.provenance import Provenance, with_provenance
from components.bundle.request import Picture, Request
from components.documents import read_bytes
from components.errors import ConfigError, DataError, MissingError
from components.files import write_whole
from flows.execution.project import Project
from flows.executors.base import pick_device
from flows.registry import resolve

if TYPE_CHECKING:
    import numpy as np


def write_samples(request: Request, project: Project, *, model: str, out: Path, nearest: int | None = None) -> None:
    """Write grid.png and 0000.png … to `out`, and nearest.png where so many neighbors are asked for.

    Raises: ConfigError for a request that the model cannot answer, DataError for an unreadable picture, ArtifactError
    for a folder that is no model.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError("--out is not a folder", got=out, fix="name a folder")
    folder = resolve(model, project.tracking, project.models)
    from components.bundle.bundle import Bundle
    from components.images.pictures import grid, png_bytes, to_uint8

    bundle = Bundle.load(folder, device=pick_device(project.settings.worker.device).type)
    images = to_uint8(bundle.sample(request))
    beside = None
    if nearest is not None:
        from flows.lineage.nearest import nearest_sheet

        beside = nearest_sheet(bundle, images, nearest, project)
    provenance = bundle.provenance(request)
    out.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        _write(out / f"{index:04d}.png", image, provenance.model_copy(update={"index": index}))
    columns = request.n if request.is_path and request.n <= 16 else None
    sheet = provenance.model_copy(update={"shown": request.n, "columns": columns})
    _write(out / "grid.png", grid(images, columns=columns), sheet)
    if beside is not None:
        (out / "nearest.png").write_bytes(png_bytes(beside))


def open_picture(path: Path) -> Picture:
    """A given picture's file. Raises: MissingError, DataError."""
    if not path.is_file():
        raise MissingError("there is no such picture", got=path)
    return Picture(read_bytes(path, DataError), str(path))


def _write(path: Path, image: "np.ndarray", provenance: Provenance) -> None:
    """A PNG with its provenance; there under its name only when it is whole."""
    from components.images.pictures import png_bytes

    write_whole(path, with_provenance(png_bytes(image), provenance))
