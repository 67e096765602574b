"""Judge sets of pictures side by side: one network, one reference, one protocol."""

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.errors import ConfigError, DataError
from components.metrics.protocol import NUMERICS, Protocol, check_same
from flows.evaluation.networks import Choice, train_on
from flows.evaluation.sets import Every, First, Npz, PictureSet, StoredStatistics, open_set
from flows.execution.project import Project
from flows.executors.base import pick_device
from flows.runs.records import load_run
from flows.runs.stored import StoredArtifact

if TYPE_CHECKING:
    from components.metrics.measured import Measured
    from components.metrics.networks.base import FeatureNetwork

_BATCH = 64
_STAGE = "sample"
_log = logging.getLogger(__name__)
Told = Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], None]]]
"""(what is read, how many pictures) -> a context that gives a function to call with how many are done."""


@dataclass(frozen=True)
class Asked:
    """What a person wants to know."""

    samples: Sequence[str]
    reference: str
    network: Choice
    n: int | None = None
    """The first n of each set of samples; None: all."""
    px: int | None = None
    seed: int = 0
    k: int = 3
    n_bootstrap: int = 20


@dataclass(frozen=True)
class Row:
    """One set of pictures and its numbers."""

    name: str
    content: str
    protocol: Protocol
    numbers: dict[str, float]
    sampled: Mapping[str, Any] = field(default_factory=dict)
    """The sampling options, where they are known."""


@dataclass(frozen=True)
class Judged:
    """All rows have one protocol. `real` is what real pictures get, half of the reference against the other half."""

    rows: list[Row]
    real: dict[str, float]
    n_real: int
    leading: list[str]
    why: str
    remarks: list[str]


def judge(asked: Asked, project: Project, told: Told) -> Judged:
    """Raises: ConfigError, DataError, WeightsError, MissingError; ShapeError for statistics of another network."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rcg-", ignore_cleanup_errors=True)))
        opened = [_open(where, asked.px, project, scratch / str(i)) for i, where in enumerate(asked.samples)]
        samples = [First(one, asked.n) if asked.n else one for one in opened]
        for one in samples:
            if not one.n:
                raise ConfigError("statistics alone cannot be judged", got=one.name, expected="pictures in arr_0")
        reference = _open(asked.reference, asked.px, project, scratch / "reference")
        network, reference, remarks = _network(asked, reference, project)
        kept = _Kept(project.root / ".rcg/statistics")
        real, stored = _measured_reference(reference, network, kept, asked, told)
        rows: list[Row] = []
        for i, one in enumerate(samples):
            protocol = _protocol(asked, network, reference, one.n, stored=stored)
            check_same({row.name: row.protocol for row in rows} | {one.name: protocol})
            rows.append(_row(one, protocol, network, real, asked, told, scratch / f"measured-{i}"))
        from components.metrics.suite import leading

        first, why = leading(rows[0].protocol.n, len(real.pooled.mean))
        floor, n_real = _floor(real, rows[0].protocol.n, asked, network.identity.kind)
        return Judged(rows, floor, n_real, first, why, remarks)


def _open(where: str, px: int | None, project: Project, scratch: Path) -> PictureSet:
    if where != _STAGE:
        return open_set(where, px)
    from components.cache.samples import Samples
    from flows.evaluation.sets import Sampled

    pointer = project.workspace.pointer(_STAGE)
    run = None if pointer is None else load_run(project.store, pointer.prefix)
    if run is None:
        raise ConfigError("the stage sample has not run here", got=project.root, fix="rcg run sample, or name a folder")
    scratch.mkdir()
    return Sampled(Samples(StoredArtifact(project.store, run, scratch)), run.digest, _STAGE)


def _network(asked: Asked, reference: PictureSet, project: Project) -> tuple["FeatureNetwork", PictureSet, list[str]]:
    """The network, the reference that is left to compare with, and what a person should know of it."""
    device = pick_device(project.settings.worker.device)
    if asked.network.kind != "trained":
        return asked.network.config().load().to(device), reference, []
    if not reference.n:
        raise ConfigError("a network cannot be trained on statistics", got=reference.name, fix="--network inception")
    params = project.params.evaluate
    learned, left = Every(reference, 1), Every(reference, 0)
    params.features.check_size(left.n)
    _log.info("training the feature network on %d pictures of the reference", learned.n)
    network = train_on(learned, params.features, params.train, seed=params.seed, device=device)
    remark = (
        "the network was trained on the spot, on every second picture of the reference: "
        "its numbers compare with nothing outside of this table"
    )
    return network.to(device), left, [remark]


class _Kept:
    """What was measured of references, found again by the digest of set and network."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, pictures: PictureSet, network: "FeatureNetwork", px: int | None, told: Told) -> "Measured":
        from components.metrics.measured import Measured, measure

        identity = [pictures.digest, pictures.n, px, asdict(network.identity), NUMERICS]
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        folder = self._root / key[:32]
        if folder.is_dir():
            return Measured.read(folder)
        fresh = self._root / f".{uuid.uuid4().hex}"
        fresh.mkdir(parents=True)
        try:
            with told(f"reference {pictures.name}", pictures.n) as on_done:
                measure(pictures.batches(_BATCH), pictures.n, network, fresh, on_done)
            with contextlib.suppress(FileExistsError):
                fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return Measured.read(folder)


def _measured_reference(
    reference: PictureSet, network: "FeatureNetwork", kept: _Kept, asked: Asked, told: Told
) -> tuple["Measured", bool]:
    """The reference as the network sees it, and whether its statistics are those that its file holds."""
    from components.metrics.measured import Measured

    stored: StoredStatistics | None = reference.statistics if isinstance(reference, Npz) else None
    if stored is not None and network.identity.kind != "inception":
        if not reference.n:
            raise ConfigError(
                "the reference's statistics are of FID's Inception", got=f"--network {network.identity.kind}",
                fix="--network inception, or a reference with pictures",
            )  # fmt: skip
        stored = None
    measured = kept.get(reference, network, asked.px, told) if reference.n else None
    if stored is None:
        if measured is None:
            raise DataError("the reference has neither pictures nor statistics", got=reference.name)
        return measured, False
    if measured is not None:
        return replace(measured, pooled=stored.pooled, spatial=stored.spatial), True
    return Measured(None, stored.pooled, stored.spatial, None), True


def _protocol(asked: Asked, network: "FeatureNetwork", reference: PictureSet, n: int, *, stored: bool) -> Protocol:
    return Protocol(
        network=asdict(network.identity),
        pictures="as they are" if asked.px is None else f"center square at {asked.px} px",
        reference=reference.digest,
        n_reference=reference.n or None,
        reference_statistics="stored" if stored else "measured",
        n=n, seed=asked.seed, k=asked.k, n_bootstrap=asked.n_bootstrap,
    )  # fmt: skip


def _row(
    pictures: PictureSet, protocol: Protocol, network: "FeatureNetwork", real: "Measured", asked: Asked, told: Told,
    scratch: Path,
) -> Row:  # fmt: skip
    from components.metrics.measured import measure
    from components.metrics.suite import compare

    scratch.mkdir()
    with told(pictures.name, pictures.n) as on_done:
        seen = measure(pictures.batches(_BATCH), pictures.n, network, scratch, on_done)
    kind = network.identity.kind
    numbers = compare(seen, real, kind=kind, k=asked.k, n_bootstrap=asked.n_bootstrap, seed=asked.seed)
    return Row(pictures.name, pictures.digest, protocol, numbers, getattr(pictures, "sampling", {}))


def _floor(real: "Measured", n: int, asked: Asked, kind: str) -> tuple[dict[str, float], int]:
    """Numbers of at most n random pictures of one half of the reference against the other half."""
    from components.metrics.finite_sample import fit
    from components.metrics.measured import Measured
    from components.metrics.suite import compare

    if real.features is None or len(real.features) < 2 * (asked.k + 2):
        return {}, 0
    order = np.random.default_rng(asked.seed).permutation(len(real.features))
    half = len(order) // 2
    some, others = np.sort(order[:half][:n]), np.sort(order[half:])
    one, other = (Measured(real.features[rows], fit(real.features, rows), None, None) for rows in (some, others))
    return compare(one, other, kind=kind, k=asked.k, n_bootstrap=0, seed=asked.seed), len(some)


def records(judged: Judged) -> Iterator[dict[str, Any]]:
    """The rows as plain data."""
    for row in judged.rows:
        yield {
            "samples": row.name, "content": row.content, "numbers": row.numbers, "protocol": row.protocol.digest,
            "conditions": row.protocol.model_dump(mode="json"), "sampled": dict(row.sampled),
        }  # fmt: skip
