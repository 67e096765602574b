"""Requests as plain records -> pictures as base64 PNG: what a model server calls. Knows no server."""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from components.bundle.bundle import Bundle
from components.bundle.provenance import with_provenance
from components.bundle.request import MAX_IMAGES, Picture, Request
from components.bundle.system import SystemSampling
from components.errors import ConfigError, DataError
from components.images.pictures import png_bytes, to_uint8

REQUEST_COLUMNS: dict[str, dict[str, Any]] = {
    "image": {"name": "image", "type": "string"},
    "representation": {"name": "representation", "type": "array", "items": {"type": "double"}},
    "class": {"name": "class", "type": "string"},
    "text": {"name": "text", "type": "string"},
}
"""What a record may hold, one at most, in the words of MLflow's signatures."""
RESPONSE_COLUMNS: dict[str, dict[str, Any]] = {
    "request": {"name": "request", "type": "long"},
    "index": {"name": "index", "type": "long"},
    "image": {"name": "image", "type": "string"},
}


class Predictor:
    """Each record asks for `n` images: plain, like an `image` (base64), of a `representation`, a `class` or a `text`.

    Record number r gets images r n … r n + n - 1 of the seed, so k plain records for one image equal a request for k.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> "Predictor":
        return cls(Bundle.load(folder, device=device))

    def predict(self, records: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One record {request, index, image} per image; no record at all means one plain request.

        Each PNG holds its provenance. Raises: ConfigError and DataError, naming what is wrong with a record.
        """
        n = _whole("n", params.get("n", 1))
        seed = _whole("seed", params.get("seed", self.bundle.card.sampling.seed))
        shared = Request(
            seed=seed,
            guidance=params.get("guidance"),
            steps=params.get("steps"),
            guide_scale=params.get("guide_scale"),
        )
        given = [_request(record, shared) for record in records] or [shared]
        if n < 1 or n * len(given) > MAX_IMAGES:
            raise ConfigError(
                "n is out of range", got=n, expected=f"1..{MAX_IMAGES // len(given)} for {len(given)} request(s)"
            )
        answers: list[dict[str, Any]] = []
        for request, equal in groupby(given):
            whole = replace(request, first=len(answers), n=n * len(list(equal)))
            provenance = self.bundle.provenance(whole)
            for i, image in enumerate(to_uint8(self.bundle.sample(whole)), start=whole.first):
                png = with_provenance(png_bytes(image), provenance.model_copy(update={"index": i}))
                answers.append({"request": i // n, "index": i, "image": base64.b64encode(png).decode()})
        return answers


def request_params(sampling: SystemSampling, guided: str | None = None) -> list[dict[str, Any]]:
    """The params that all records of a call share, with their defaults. `guided`: the generator that has a guide."""
    defaults: dict[str, tuple[str, float]] = {
        "n": ("long", 1),
        "seed": ("long", sampling.seed),
        "guidance": ("double", sampling.pixels.guidance),
        "steps": ("long", sampling.pixels.steps),
    }
    if guided is not None:
        guide = getattr(getattr(sampling, guided), "guide", None)
        defaults["guide_scale"] = ("double", guide.scale if guide else 0.0)
    return [{"name": name, "type": kind, "default": value, "shape": None} for name, (kind, value) in defaults.items()]


def _whole(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{name} is no number", got=repr(value)[:80], expected="a whole number") from error


def _floats(values: Any) -> tuple[float, ...]:
    try:
        return tuple(map(float, values))
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError("representation is no list of numbers", got=repr(values)[:80]) from error


def _request(record: Mapping[str, Any], shared: Request) -> Request:
    """Raises: ConfigError for unknown keys or two conditions at once; DataError for an image that is not base64."""
    if unknown := sorted(set(record) - set(REQUEST_COLUMNS)):
        got = ", ".join(map(str, unknown))
        raise ConfigError("unknown key in a request", got=got, expected=", ".join(REQUEST_COLUMNS))
    filled = {key: value for key, value in record.items() if not _is_empty(value)}
    return replace(
        shared,
        like=_picture(filled["image"]) if "image" in filled else None,
        representation=_floats(filled["representation"]) if "representation" in filled else None,
        class_name=str(filled["class"]) if "class" in filled else None,
        text=(str(filled["text"]),) if "text" in filled else (),
    )


def _picture(text: str) -> Picture:
    try:
        return Picture(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, TypeError) as error:
        expected = "the bytes of a picture file in base64"
        raise DataError("image is not base64", got=error, expected=expected) from error


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
