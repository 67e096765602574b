"""Judge sets of pictures side by side: one network, one reference, one protocol."""

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.errors import ConfigError, DataError
from components.metrics.advice import advise
from components.metrics.config import ReadyFeatures
from components.metrics.protocol import NUMERICS, Protocol, check_same
from components.metrics.sight import Sight
from flows.evaluation.eye import Eye, open_eye
from flows.evaluation.made import encoder_of, open_pictures
from flows.evaluation.networks import Choice, train_on
from flows.evaluation.rows import Judged, Row, read_rows
from flows.evaluation.sets import Every, First, Npz, PictureSet, StoredStatistics
from flows.execution.project import Project
from flows.executors.base import pick_device

if TYPE_CHECKING:
    from components.metrics.measured import Measured
    from components.metrics.networks.base import FeatureNetwork

_BATCH = 64
_SHOWN = 64
"""Pictures of each set that a page shows."""
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
    beside: Sequence[Path] = ()
    """JSON files of earlier evaluations, whose rows are shown, too."""
    allow_same: bool = False
    """Judge in features of the network that conditioned the pictures."""
    controls: bool = True
    """Also judge the judge, by spoiled pictures of the reference."""


def judge(asked: Asked, project: Project, told: Told) -> Judged:
    """Raises: ConfigError, DataError, WeightsError, MissingError; ShapeError for statistics of another network."""
    earlier = [row for file in asked.beside for row in read_rows(file)]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rcg-", ignore_cleanup_errors=True)))
        samples, reference = _opened(asked, project, scratch)
        network, reference, remarks = _network(asked, reference, project)
        remarks += [remark for one in samples for remark in _same_network(one, network, asked)]
        kept = _Kept(project.root / ".rcg/statistics")
        real, stored = _measured_reference(reference, network, kept, asked, told)
        protocols = {one.name: _protocol(asked, network, reference, one.n, stored=stored) for one in samples}
        check_same([*protocols.items(), *((row.name, row.protocol) for row in earlier)])
        n = samples[0].n
        eye = open_eye(reference, real, network, n=n, k=asked.k, seed=asked.seed) if asked.controls else None
        rows = [
            _row(one, protocols[one.name], network, real, eye, asked, told, scratch / f"measured-{i}")
            for i, one in enumerate(samples)
        ]
        advice = advise(n, reference.n or None, len(real.pooled.mean), k=asked.k)
        floor, n_real = _floor(real, n, asked, network.identity.kind)
        remarks += advice.remarks + ([] if eye is None else _doubts(eye.sight))
        shown = next(iter(reference.batches(_SHOWN)))[:_SHOWN] if reference.n else None
        sight = None if eye is None else eye.sight
        return Judged(rows + earlier, floor, n_real, shown, advice.leading, advice.why, remarks, sight)


def _doubts(sight: Sight) -> list[str]:
    if sight.blind:
        return [
            f"the judge is blind, so its numbers rank nothing and are not shown: {'; '.join(sight.reasons)}. Look at "
            "the pictures, and judge them by a network from a file (--network dinov2, timm, clip) or by more pictures"
        ]
    if sight.precision_blind:
        return ["noise or shuffled patches pass for real one by one, so precision and its kin are not shown"]
    return []


def _opened(asked: Asked, project: Project, scratch: Path) -> tuple[list[PictureSet], PictureSet]:
    samples: list[PictureSet] = []
    for i, where in enumerate(asked.samples):
        one = open_pictures(where, project, px=asked.px, n=asked.n, seed=asked.seed, scratch=scratch / str(i))
        if not one.n:
            raise ConfigError("statistics alone cannot be judged", got=one.name, expected="pictures in arr_0")
        samples.append(First(one, asked.n) if asked.n and asked.n != one.n else one)
    if asked.reference.startswith("models:"):
        raise ConfigError("a reference is of real pictures", got=asked.reference, expected="a folder or an .npz file")
    reference = open_pictures(
        asked.reference, project, px=asked.px, n=None, seed=asked.seed, scratch=scratch / "reference"
    )
    return samples, reference


def _same_network(pictures: PictureSet, network: "FeatureNetwork", asked: Asked) -> list[str]:
    """A remark where the judge is the network whose representations the pictures were made from.

    In its features a generator that is conditioned on them flatters itself. Raises: ConfigError unless it is allowed.
    """
    from components.metrics.networks.base import FLATTERS, judges_itself

    same = judges_itself(network, encoder_of(pictures), allowed=asked.allow_same, fix="say --allow-same")
    return [f"{pictures.name}: {FLATTERS}"] if same else []


def _network(asked: Asked, reference: PictureSet, project: Project) -> tuple["FeatureNetwork", PictureSet, list[str]]:
    """The network, the reference that is left to compare with, and what a person should know of it."""
    device = pick_device(project.settings.worker.device)
    if asked.network.kind not in (None, "trained"):
        return asked.network.config().load().to(device), reference, []
    params = project.params.evaluate
    if isinstance(params.features, ReadyFeatures) and asked.network.kind is None:
        return params.features.network.load().to(device), reference, []
    if isinstance(params.features, ReadyFeatures) or params.train is None:
        raise ConfigError(
            "params.yaml says of no network how it is trained",
            got="evaluate.features is ready-made, from a file",
            expected="evaluate.features with px, width and dim, and evaluate.train",
            fix="leave --network out",
        )
    if not reference.n:
        raise ConfigError("a network cannot be trained on statistics", got=reference.name, fix="--network inception")
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
                "the reference's statistics are of FID's Inception",
                got=f"--network {network.identity.kind}",
                fix="--network inception, or a reference with pictures",
            )
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
        n=n,
        seed=asked.seed,
        k=asked.k,
        n_bootstrap=asked.n_bootstrap,
    )


def _row(
    pictures: PictureSet,
    protocol: Protocol,
    network: "FeatureNetwork",
    real: "Measured",
    eye: Eye | None,
    asked: Asked,
    told: Told,
    scratch: Path,
) -> Row:
    from components.metrics.measured import measure
    from components.metrics.suite import compare

    scratch.mkdir()
    shown: list[np.ndarray] = []
    with told(pictures.name, pictures.n) as on_done:
        seen = measure(_peeked(pictures.batches(_BATCH), shown), pictures.n, network, scratch, on_done)
    kind = network.identity.kind
    numbers = compare(seen, real, kind=kind, k=asked.k, n_bootstrap=asked.n_bootstrap, seed=asked.seed)
    first = np.concatenate(shown)[:_SHOWN]
    if eye is not None and seen.features is not None:
        numbers |= eye.of(first, seen.features)
    return Row(pictures.name, pictures.digest, protocol, numbers, pictures.sampled, first)


def _peeked(batches: Iterator[np.ndarray], shown: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The batches; the first ones are also appended to `shown`."""
    for images in batches:
        if sum(map(len, shown)) < _SHOWN:
            shown.append(images)
        yield images


def _floor(real: "Measured", n: int, asked: Asked, kind: str) -> tuple[dict[str, float], int]:
    """Numbers of at most n random pictures of one half of the reference against the other half."""
    from components.metrics.gaussian import Gaussian
    from components.metrics.measured import Measured
    from components.metrics.suite import compare

    if real.features is None or len(real.features) < 2 * (asked.k + 2):
        return {}, 0
    order = np.random.default_rng(asked.seed).permutation(len(real.features))
    half = len(order) // 2
    some, others = np.sort(order[:half][:n]), np.sort(order[half:])
    one, other = (
        Measured(real.features[rows], Gaussian.fit(real.features, rows), None, None) for rows in (some, others)
    )
    return compare(one, other, kind=kind, k=asked.k, n_bootstrap=0, seed=asked.seed), len(some)
