"""Sets of pictures that this project makes: those of the stage `sample`, and a bundle's, sampled on the fly."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.bundle.bundle import CARD
from components.errors import ConfigError
from flows.evaluation.sets import First, PictureSet, open_set
from flows.execution.project import Project
from flows.executors.base import pick_device
from flows.registry import resolve
from flows.runs.ancestry import above
from flows.runs.records import load_run
from flows.runs.stored import StoredArtifact

if TYPE_CHECKING:
    from components.bundle.bundle import Bundle
    from components.cache.samples import Samples
    from components.encoders.base import Encoder

STAGE = "sample"


class Sampled:
    """The samples of a committed run of the stage `sample`, and the encoder of their representations."""

    def __init__(self, samples: "Samples", digest: str, encoder: "Encoder | None") -> None:
        self._samples, self.digest, self.name, self.n = samples, digest, STAGE, len(samples)
        self.encoder = encoder
        self.sampled: Mapping[str, Any] = samples.info.sampling

    def batches(self, size: int) -> Iterator[np.ndarray]:  # noqa: ARG002  (shards have a size of their own)
        return self._samples.batches()


class FromBundle:
    """Pictures 0 … n - 1 of a seed, with the bundle's own options; sampled each time that they are read."""

    def __init__(self, bundle: "Bundle", name: str, n: int, seed: int) -> None:
        from components.bundle.request import Request

        self.bundle, self.name, self.n = bundle, name, n
        self._request = Request(n=n, seed=seed)
        self.sampled: Mapping[str, Any] = bundle.provenance(self._request).sampling
        self.digest = hashlib.sha256(f"{bundle.digest} {n} {seed}".encode()).hexdigest()

    def batches(self, size: int) -> Iterator[np.ndarray]:  # noqa: ARG002  (a bundle has a batch of its own)
        from components.images.pictures import to_uint8

        system = self.bundle.system
        draw = system.sampler(self._request)
        return (to_uint8(system.images(draw(here))) for here in system.split(self._request))


def open_pictures(
    where: str, project: Project, *, px: int | None, n: int | None, seed: int, scratch: Path
) -> PictureSet:
    """A folder, an .npz file, `sample`, a bundle's folder or models:/name@alias.

    Raises: ConfigError, MissingError, DataError, TamperedError.
    """
    if where == STAGE:
        return _of_stage(project, scratch)
    if not where.startswith("models:") and not (Path(where) / CARD).is_file():
        return open_set(where, px)
    if n is None:
        raise ConfigError("a bundle has no number of pictures", got=where, fix="-n 1000 samples so many")
    from components.bundle.bundle import Bundle

    folder = resolve(where, project.tracking, project.models)
    device = pick_device(project.settings.worker.device).type
    return FromBundle(Bundle.load(folder, device=device), where, n, seed)


def encoder_of(pictures: PictureSet) -> "Encoder | None":
    """The network that conditioned the pictures; None where there was none, or it is not at hand any more."""
    if isinstance(pictures, First):
        return encoder_of(pictures.of)
    if isinstance(pictures, Sampled):
        return pictures.encoder
    if not isinstance(pictures, FromBundle) or "encoder" not in pictures.bundle.card.parts:
        return None
    return pictures.bundle.encoder


def _of_stage(project: Project, scratch: Path) -> Sampled:
    from components.cache.samples import Samples

    pointer = project.workspace.pointer(STAGE)
    run = None if pointer is None else load_run(project.store, pointer.prefix)
    if run is None:
        raise ConfigError("the stage sample has not run here", got=project.root, fix="rcg run sample, or name a folder")
    scratch.mkdir()
    samples = Samples(StoredArtifact(project.store, run, scratch / STAGE))
    encoder = above(project.store, run, "encoder") if samples.info.dim is not None else None
    if encoder is None:
        return Sampled(samples, run.digest, None)
    from components.encoders.base import load_encoder

    return Sampled(samples, run.digest, load_encoder(StoredArtifact(project.store, encoder, scratch / "encoder")))
