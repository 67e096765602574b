"""`rcg sample`: a grid and single pictures from a bundle, each saying in its metadata where it came from."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.errors import ConfigError, DataError, MissingError
from flows.artifact import SCHEMA, Manifest, digest_of, file_entry, pack_manifest
from flows.registry import resolve
from flows.settings import load_settings
from flows.tracking import resolve_tracking

if TYPE_CHECKING:
    from torch import Tensor

    from components.rcg import RCG

MANIFEST = "manifest.json"
_NOT_CONTENT = {MANIFEST, "run.json", "context.json", "registered_model_meta"}


@dataclass(frozen=True)
class DrawRequest:
    """What is asked for; None leaves the bundle's default."""

    model: str
    out: Path
    n: int
    seed: int
    like: Path | None = None
    between: tuple[Path, Path] | None = None
    class_name: str | None = None
    guidance: float | None = None
    steps: int | None = None
    batch_size: int | None = None


def draw(request: DrawRequest) -> str:
    """Write grid.png and 0000.png … to the folder; returns the line to print.

    Raises: ConfigError for options that do not go together or that the model cannot do, DataError for an unreadable
    picture, ArtifactError for a model that is none.
    """
    _check(request)
    settings = load_settings()
    folder = resolve(request.model, resolve_tracking(settings.mlflow_uri, settings.mlflow_experiment))
    from components.data.pictures import grid, to_uint8
    from components.rcg import RCG

    images = to_uint8(_images(RCG.load(folder, device=_device(settings.device)), request))
    facts = _facts(request, bundle_digest(folder))
    request.out.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        _write(request.out / f"{index:04d}.png", image, facts | {"rcg.index": str(index)})
    columns = request.n if request.between and request.n <= 16 else None
    _write(request.out / "grid.png", grid(images, columns=columns), facts)
    return f"{len(images)} picture(s) in {request.out}, all of them in {request.out / 'grid.png'}"


def _check(request: DrawRequest) -> None:
    asked = [
        option
        for option, value in (("--like", request.like), ("--between", request.between), ("--class", request.class_name))
        if value is not None
    ]
    if len(asked) > 1:
        raise ConfigError("these options exclude each other", got=", ".join(asked), fix="give one of them")
    if request.between and request.n < 2:
        raise ConfigError("--between needs at least two pictures", got=f"-n {request.n}", fix="-n 8")
    if request.seed < 0:
        raise ConfigError("a seed is not negative", got=request.seed)
    if request.out.exists() and not request.out.is_dir():
        raise ConfigError("--out is not a folder", got=request.out, fix="name a folder")


def _images(rcg: "RCG", request: DrawRequest) -> "Tensor":
    from components.rcg import Overrides

    overrides = Overrides(guidance=request.guidance, steps=request.steps, batch_size=request.batch_size)
    if request.like is not None:
        return rcg.variations(_picture(rcg, request.like), request.n, request.seed, overrides=overrides)
    if request.between is not None:
        a, b = (_picture(rcg, path) for path in request.between)
        return rcg.interpolate(a, b, request.n, request.seed, overrides)
    label = None if request.class_name is None else rcg.class_index(request.class_name)
    return rcg.sample(request.n, request.seed, label=label, overrides=overrides)


def _picture(rcg: "RCG", path: Path) -> "Tensor":
    if not path.is_file():
        raise MissingError("there is no such picture", got=path)
    try:
        return rcg.read_picture(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read", got=error) from error
    except DataError as error:
        raise DataError(f"{path} cannot be used", got=error.what, expected="a picture file") from error


def _facts(request: DrawRequest, digest: str) -> dict[str, str]:
    """Provenance: enough to draw the same picture again."""
    given = {
        "rcg.bundle": digest, "rcg.seed": request.seed, "rcg.n": request.n, "rcg.class": request.class_name,
        "rcg.guidance": request.guidance, "rcg.steps": request.steps,
        "rcg.like": _sha256s(request.like), "rcg.between": _sha256s(*(request.between or ())),
    }  # fmt: skip
    return {name: str(value) for name, value in given.items() if value is not None}


def _sha256s(*paths: Path | None) -> str | None:
    return " ".join(file_entry(path).sha256 for path in paths if path is not None) or None


def _write(path: Path, picture: np.ndarray, facts: dict[str, str]) -> None:
    """A PNG with text chunks; there under its name only when it is whole."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for name, value in facts.items():
        info.add_text(name, value)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", pnginfo=info)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)


def _device(wanted: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigError("there is no GPU here", got="RCG_DEVICE=cuda", fix="set RCG_DEVICE=auto or cpu")
    return "cuda" if available and wanted != "cpu" else "cpu"


def bundle_digest(folder: Path) -> str:
    """The content digest, worked out from the files that are there: what was drawn from is what is named."""
    files = {
        path.relative_to(folder).as_posix(): file_entry(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc" and path.relative_to(folder).as_posix() not in _NOT_CONTENT
    }
    return digest_of(pack_manifest(Manifest(schema_version=SCHEMA, stage="bundle", files=files))[0])
