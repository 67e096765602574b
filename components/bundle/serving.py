"""Requests as plain records -> pictures as base64 PNG: what a model server calls. Knows no server."""

import base64
import binascii
import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.bundle.provenance import SCHEMA, Provenance, bundle_digest, platform_facts, with_provenance
from components.bundle.system import RCG, Overrides, SamplingDefaults
from components.errors import ConfigError, DataError
from components.images.pictures import png_bytes, to_uint8

REQUEST_COLUMNS: dict[str, dict[str, Any]] = {
    "image": {"name": "image", "type": "string"},
    "representation": {"name": "representation", "type": "array", "items": {"type": "double"}},
    "class": {"name": "class", "type": "string"},
}
"""What a request may hold, one at most, in the words of MLflow's signatures."""
RESPONSE_COLUMNS: dict[str, dict[str, Any]] = {
    "request": {"name": "request", "type": "long"},
    "index": {"name": "index", "type": "long"},
    "image": {"name": "image", "type": "string"},
}
MAX_IMAGES = 10_000


class Predictor:
    """Each request draws `n` images: plain, like a given `image` (base64), from a `representation`, or of a `class`.

    Request number r gets images r n … r n + n - 1 of the seed, so k plain requests for one image equal RCG.sample(k).
    """

    def __init__(self, rcg: RCG) -> None:
        self.rcg = rcg

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> "Predictor":
        return cls(RCG.load(folder, device=device))

    @cached_property
    def _bundle(self) -> str:
        return bundle_digest(self.rcg.folder)

    def predict(self, requests: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One record {request, index, image} per image; no request at all means one plain request.

        Each PNG holds its provenance. Raises: ConfigError and DataError, naming what is wrong with a request.
        """
        n, seed = int(params.get("n", 1)), int(params.get("seed", self.rcg.card.sampling.seed))
        given = [_checked(request) for request in requests] or [{}]
        if n < 1 or n * len(given) > MAX_IMAGES:
            raise ConfigError(
                "n is out of range", got=n, expected=f"1..{MAX_IMAGES // len(given)} for {len(given)} request(s)"
            )
        overrides = Overrides(guidance=params.get("guidance"), steps=params.get("steps"))
        answers: list[dict[str, Any]] = []
        for request, equal in groupby(given):
            first, count = len(answers), n * len(list(equal))
            images = to_uint8(self._draw(request, count, seed, first, overrides))
            origin = origin_of(
                self.rcg, self._bundle, seed=seed, first=first, n=count, overrides=overrides, condition=_named(request)
            )
            for i, image in enumerate(images, start=first):
                png = with_provenance(png_bytes(image), origin.model_copy(update={"index": i}))
                answers.append({"request": i // n, "index": i, "image": base64.b64encode(png).decode()})
        return answers

    def _draw(self, request: Mapping[str, Any], n: int, seed: int, first: int, overrides: Overrides) -> Tensor:
        if "image" in request:
            try:
                data = base64.b64decode(request["image"], validate=True)
            except (binascii.Error, ValueError, TypeError) as error:
                raise DataError(
                    "image is not base64", got=error, expected="the bytes of a picture file in base64"
                ) from error
            return self.rcg.variations(self.rcg.read_picture(data), n, seed, first=first, overrides=overrides)
        if "representation" in request:
            z = torch.tensor([float(v) for v in request["representation"]])[None]
            return self.rcg.from_representations(
                z.expand(n, -1), seed, numbers=range(first, first + n), overrides=overrides
            )
        label = self.rcg.class_index(str(request["class"])) if "class" in request else None
        return self.rcg.sample(n, seed, first=first, label=label, overrides=overrides)


def origin_of(
    rcg: RCG, bundle: str, *, seed: int, first: int, n: int, overrides: Overrides, condition: Mapping[str, str]
) -> Provenance:  # fmt: skip
    """Provenance that the images of one request share; each adds its index."""
    return Provenance(
        schema_version=SCHEMA, bundle=bundle, parents={}, seed=seed, index=None, first=first, n=n,
        shown=None, columns=None, condition=dict(condition),
        sampling=rcg.effective(overrides).model_dump(mode="json", exclude={"seed"}),
        platform=platform_facts(rcg.device.type),
    )  # fmt: skip


def _named(request: Mapping[str, Any]) -> dict[str, str]:
    """The condition as provenance holds it."""
    if "image" in request:
        return {"like": hashlib.sha256(base64.b64decode(request["image"])).hexdigest()}
    if "representation" in request:
        z = torch.tensor([float(v) for v in request["representation"]])
        return {"representation": hashlib.sha256(z.numpy().tobytes()).hexdigest()}
    return {"class": str(request["class"])} if "class" in request else {}


def request_params(sampling: SamplingDefaults) -> list[dict[str, Any]]:
    """The params that all requests of a call share, with what counts when one is left out."""
    defaults = {
        "n": ("long", 1),
        "seed": ("long", sampling.seed),
        "guidance": ("double", sampling.pixels.guidance),
        "steps": ("long", sampling.pixels.steps),
    }
    return [{"name": name, "type": kind, "default": value, "shape": None} for name, (kind, value) in defaults.items()]


def _checked(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request without its empty entries. Raises: ConfigError for unknown keys or two conditions at once."""
    unknown = sorted(set(request) - set(REQUEST_COLUMNS))
    if unknown:
        raise ConfigError(
            "unknown key in a request", got=", ".join(map(str, unknown)), expected=", ".join(REQUEST_COLUMNS)
        )
    filled = {key: value for key, value in request.items() if not _is_empty(value)}
    if len(filled) > 1:
        raise ConfigError(
            "a request has more than one condition", got=", ".join(filled), expected="one of them, or none"
        )
    return {key: list(value) if key == "representation" else value for key, value in filled.items()}


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
