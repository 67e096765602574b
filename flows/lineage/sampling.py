"""A grid and single pictures sampled from a bundle, each with its provenance in the file's metadata."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.bundle.provenance import Provenance, bundle_digest, with_provenance
from components.errors import ConfigError, DataError, MissingError
from flows.execution.project import Project
from flows.executors.base import pick_device
from flows.identity.artifact import file_entry
from flows.registry import resolve

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from components.bundle.system import RCG, Overrides


@dataclass(frozen=True)
class SampleRequest:
    """What is asked for; None leaves the bundle's default."""

    model: str
    out: Path
    n: int
    seed: int
    like: Path | None = None
    between: tuple[Path, Path] | None = None
    share: float | None = None
    nearest: int | None = None
    class_name: str | None = None
    guidance: float | None = None
    steps: int | None = None
    batch_size: int | None = None


def write_samples(request: SampleRequest, project: Project) -> None:
    """Write grid.png and 0000.png … to the request's folder.

    Raises: ConfigError for options that do not go together or that the model cannot do, DataError for an unreadable
    picture, ArtifactError for a model that is none.
    """
    _check(request)
    folder = resolve(request.model, project.tracking, project.models)
    from components.bundle.system import RCG
    from components.images.pictures import grid, png_bytes, to_uint8

    rcg = RCG.load(folder, device=pick_device(project.settings.device).type)
    images = to_uint8(_images(rcg, request))
    beside = None
    if request.nearest is not None:
        from flows.lineage.nearest import nearest_sheet

        beside = nearest_sheet(rcg, images, request.nearest, project)
    origin = _origin(rcg, request, bundle_digest(folder))
    request.out.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        _write(request.out / f"{index:04d}.png", image, origin.model_copy(update={"index": index}))
    columns = request.n if request.between and request.share is None and request.n <= 16 else None
    sheet = origin.model_copy(update={"shown": request.n, "columns": columns})
    _write(request.out / "grid.png", grid(images, columns=columns), sheet)
    if beside is not None:
        (request.out / "nearest.png").write_bytes(png_bytes(beside))


def _check(request: SampleRequest) -> None:
    asked = [
        option
        for option, value in (("--like", request.like), ("--between", request.between), ("--class", request.class_name))
        if value is not None
    ]
    if len(asked) > 1:
        raise ConfigError("these options exclude each other", got=", ".join(asked), fix="give one of them")
    if request.share is not None and request.between is None:
        raise ConfigError("--share says how to mix two pictures", got="no --between", fix="--between A B --share 0.5")
    if request.between and request.share is None and request.n < 2:
        raise ConfigError("--between needs at least two pictures", got=f"-n {request.n}", fix="-n 8")
    if request.seed < 0:
        raise ConfigError("a seed is not negative", got=request.seed)
    if request.out.exists() and not request.out.is_dir():
        raise ConfigError("--out is not a folder", got=request.out, fix="name a folder")


def _overrides(request: SampleRequest) -> "Overrides":
    from components.bundle.system import Overrides

    return Overrides(guidance=request.guidance, steps=request.steps, batch_size=request.batch_size)


def _images(rcg: "RCG", request: SampleRequest) -> "Tensor":
    overrides = _overrides(request)
    if request.like is not None:
        return rcg.variations(open_picture(rcg, request.like), request.n, request.seed, overrides=overrides)
    if request.between is not None:
        a, b = (open_picture(rcg, path) for path in request.between)
        if request.share is not None:
            return rcg.mixture(a, b, request.share, request.n, request.seed, overrides=overrides)
        return rcg.interpolate(a, b, request.n, request.seed, overrides)
    label = None if request.class_name is None else rcg.class_index(request.class_name)
    return rcg.sample(request.n, request.seed, label=label, overrides=overrides)


def open_picture(rcg: "RCG", path: Path) -> "Tensor":
    """A given picture in the model's size and range. Raises: MissingError, DataError."""
    if not path.is_file():
        raise MissingError("there is no such picture", got=path)
    try:
        return rcg.read_picture(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read", got=error) from error
    except DataError as error:
        raise DataError(f"{path} cannot be used", got=error.what, expected="a picture file") from error


def _origin(rcg: "RCG", request: SampleRequest, digest: str) -> Provenance:
    """The provenance that all pictures of the request share."""
    from components.bundle.serving import origin_of

    given = {
        "class": request.class_name,
        "like": sha256s(request.like),
        "between": sha256s(*(request.between or ())),
        "share": None if request.share is None else str(request.share),
    }
    condition = {name: value for name, value in given.items() if value is not None}
    return origin_of(
        rcg, digest, seed=request.seed, first=0, n=request.n, overrides=_overrides(request), condition=condition
    )


def sha256s(*paths: Path | None) -> str | None:
    """Digests of given pictures as provenance holds them; None for no pictures."""
    return " ".join(file_entry(path).sha256 for path in paths if path is not None) or None


def _write(path: Path, picture: "np.ndarray", provenance: Provenance) -> None:
    """A PNG with its provenance; there under its name only when it is whole."""
    from components.images.pictures import png_bytes

    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(with_provenance(png_bytes(picture), provenance))
    temporary.replace(path)
