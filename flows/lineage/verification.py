"""Sample a picture's micro-batch again from its bundle, and compare."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from components.bundle.provenance import Provenance, check_bundle, platform_facts, read_provenance
from components.bundle.request import Edit, Request, Upscale
from components.errors import ArtifactError, ConfigError, RcgError
from components.images.config import MOST_PIXELS, DecodeRecipe
from components.metrics.psnr import psnr_db
from flows.execution.project import Project
from flows.executors.base import pick_device
from flows.lineage.origin import bundle_of, read_lineage
from flows.lineage.sampling import open_picture
from flows.settings import Device

if TYPE_CHECKING:
    from components.bundle.bundle import Bundle

Likeness = Literal["identical", "matches", "differs", "not decidable"]
MATCH_DB = 40.0
"""PSNR from which a picture sampled on another platform counts as the same: a mean error below one percent of white."""


@dataclass(frozen=True)
class Finding:
    """How like the two are, and why. `psnr_db` is None where nothing was compared, or nothing differs."""

    verdict: Likeness
    why: str
    psnr_db: float | None = None

    @property
    def exit_code(self) -> int:
        return 0 if self.verdict in ("identical", "matches") else ArtifactError.exit_code


@dataclass(frozen=True)
class VerifyRequest:
    """A picture, and what it was sampled with: a bundle, and the pictures that were given."""

    picture: Path
    model: str | None = None
    given: tuple[Path, ...] = ()
    """Those of --like or --between."""
    made_of: tuple[Path, ...] = ()
    """Picture and mask of an edit; the picture that was upscaled."""


def verify(request: VerifyRequest, project: Project) -> Finding:
    """Raises: ArtifactError for a picture without provenance, or for another bundle than the one that it names."""
    data = open_picture(request.picture).data
    claim = read_provenance(data)
    shown = shown_pixels(data)
    unknown = _undecidable(claim, request)
    if unknown is not None:
        return Finding("not decidable", unknown)
    folder = bundle_of(claim, request.model, project)
    _check_bundle(claim, folder, check_bundle(folder))
    drawn, same_platform, tokens = _sample_again(claim, folder, request, project.settings.worker.device)
    return compare(shown, drawn, same_platform=same_platform, tokens=tokens)


def _undecidable(claim: Provenance, request: VerifyRequest) -> str | None:
    """Why the picture cannot be sampled again from a bundle alone; None when it can."""
    if "oracle" in claim.condition:
        return "it was drawn from representations of real pictures, which no bundle holds"
    if "captions" in claim.condition:
        return "it was drawn from captions of real pictures, which no bundle holds"
    if "representation" in claim.condition:
        return "it was drawn from a representation that the caller gave, which no bundle holds"
    condition = claim.condition
    made_of = {name: condition[name] for name in ("image", "mask") if name in condition}
    given = (
        (
            "--like" if "like" in condition else "--between",
            condition.get("like") or condition.get("between"),
            request.given,
        ),
        (" and ".join(f"--{name}" for name in made_of), " ".join(made_of.values()) or None, request.made_of),
    )
    for option, wanted, paths in given:
        if wanted is not None and len(paths) < len(wanted.split()):
            return f"it was drawn from a given picture; name it: {option}"
        found = " ".join(open_picture(path).sha256 for path in paths)
        if wanted is not None and found != wanted:
            raise ConfigError("these are not the pictures that it was sampled from", got=found, expected=wanted)
    return None


def _check_bundle(claim: Provenance, folder: Path, found: str) -> None:
    """Raises: ArtifactError unless the bundle, of content `found`, is the one that the picture names."""
    if claim.bundle is not None:
        if found != claim.bundle:
            raise ArtifactError(
                "the picture names another bundle than this one",
                got=f"{folder} is {found}",
                expected=claim.bundle,
                fix="name the right one with --model; if it should be this one, its files or the picture were altered",
            )
        return
    parents = read_lineage(folder)["parents"]
    wrong = [s for s, digest in claim.parents.items() if parents.get(s, {}).get("content") != digest]
    if wrong:
        raise ArtifactError(
            f"the bundle's {wrong[0]} is not the one that the picture was drawn with",
            got=parents.get(wrong[0], {}).get("content"),
            expected=claim.parents[wrong[0]],
            fix="name the right bundle with --model",
        )


def _sample_again(
    claim: Provenance, folder: Path, request: VerifyRequest, device: Device
) -> tuple[np.ndarray, bool, bool]:
    """(pixels, whether this platform is the recorded one, whether the generator samples tokens)."""
    import torch

    from components.bundle.bundle import Bundle
    from components.bundle.system import SystemSampling

    threads = torch.get_num_threads()
    recorded = claim.platform or {}
    try:
        if recorded.get("threads", "").isdigit():
            torch.set_num_threads(min(1024, max(1, int(recorded["threads"]))))
        bundle = Bundle.load(folder, device=pick_device(device).type)
        sampling = SystemSampling.model_validate({"seed": claim.seed, **claim.sampling})
        if sampling.pixels.kind != bundle.card.sampling.pixels.kind:
            raise ArtifactError("its sampling options are of another generator", got=sampling.pixels.kind)
        bundle.system.sampling = sampling
        sampled = _sampled_again(bundle, claim, request)
        return sampled, recorded == platform_facts(bundle.device.type), sampling.pixels.kind == "masked"
    except (RcgError, ValueError) as error:
        what = error.what if isinstance(error, RcgError) else str(error).splitlines()[0]
        raise ArtifactError(
            "the picture cannot be sampled again as its provenance says: edited, forged, or of other code", got=what
        ) from error
    finally:
        torch.set_num_threads(threads)


def _sampled_again(bundle: "Bundle", claim: Provenance, request: VerifyRequest) -> np.ndarray:
    """The picture's own pixels, or its grid's. Shapes: (h, w, 3) uint8."""
    from components.images.pictures import grid, to_uint8

    positions = claim.batch
    batches = bundle.system.batches(_request(claim, request), positions)
    pixels = np.concatenate([to_uint8(bundle.system.images(batch)) for batch in batches])
    if claim.index is not None:
        own: np.ndarray = pixels[claim.index - claim.first - positions.start]
        return own
    return grid(pixels[: claim.shown], columns=claim.columns)


def _request(claim: Provenance, request: VerifyRequest) -> Request:
    """The request that the picture answers by its claim."""
    pictures = [open_picture(path) for path in request.given]
    condition, made_of = claim.condition, [open_picture(path) for path in request.made_of]
    edit = Edit(image=made_of[0], mask=made_of[1], free="free" in condition) if "mask" in condition else None
    small = made_of[0] if "image" in condition else None
    return Request(
        n=claim.n,
        seed=claim.seed,
        first=claim.first,
        class_name=condition.get("class"),
        text=tuple(condition["text"].split("\n")) if "text" in condition else (),
        like=pictures[0] if "like" in condition else None,
        between=(pictures[0], pictures[1]) if "between" in condition else None,
        share=float(condition["share"]) if "share" in condition else None,
        edit=edit,
        upscale=Upscale(image=small) if "upscale" in condition else None,
    )


def shown_pixels(data: bytes) -> np.ndarray:
    """Shapes: (h, w, 3) uint8. Raises: DataError for a damaged picture, or one of far too many pixels."""
    from components.images.decode import decode

    return np.asarray(decode(data, DecodeRecipe(background=(255, 255, 255), max_pixels=MOST_PIXELS)))


def compare(shown: np.ndarray, drawn: np.ndarray, *, same_platform: bool, tokens: bool) -> Finding:
    """What equal or unequal pixels mean, by platform and by whether the generator samples tokens.

    Shapes: (h, w, 3) uint8.
    """
    if shown.shape != drawn.shape:
        sizes = (f"{image.shape[1]} x {image.shape[0]}" for image in (shown, drawn))
        return Finding("differs", "it has {} pixels, the bundle draws {}".format(*sizes))
    if np.array_equal(shown, drawn):
        return Finding("identical", "the bundle draws every pixel of it")
    decibels = psnr_db(shown, drawn)
    if same_platform:
        why = "drawn again on the platform that it names, it comes out otherwise: altered, or its provenance is false"
        return Finding("differs", why, decibels)
    if decibels >= MATCH_DB:
        why = f"drawn on another platform it is the same within rounding ({MATCH_DB:g} dB or more)"
        return Finding("matches", why, decibels)
    if tokens:
        why = "on another platform a token may fall the other way, and this generator draws tokens"
        return Finding("not decidable", why, decibels)
    return Finding("differs", f"less than {MATCH_DB:g} dB alike, which another platform does not explain", decibels)
