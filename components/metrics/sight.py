"""Can the judge see? Its own network measured on pictures that were spoiled on purpose, beside real ones.

A network that finds noise as good as pictures says of noise that it is good. So held-out pictures are spoiled in three
ways (controls.py). For distance, precision and recall, half of them stand for the real ones and the other half,
untouched and spoiled, is measured against these: sets of one size, whose numbers have the same bias.

The judge is *blind* when chance explains what it sees, by exact tests at 5% (evidence.py) and by nothing tuned:

- noise, or shuffled patches, lie no further from the pictures they were made of than if each had changed places with
  its picture at random (energy test, all pictures); or
- neither noise nor shuffled patches lie among the real half less often than untouched pictures do (sign test), and a
  distance as large as theirs came up among the random exchanges of the energy test at least once; or
- it was trained to name labels, and names held-out ones no better than always naming the commonest (measure.at_chance).

Where noise or shuffled patches pass for real picture by picture, while their distance gives them away, *precision* is
blind (and recall, which is made the same way): noise that the network maps to one point in the middle of the pictures
is precise, and so is a shuffled texture, which is one. Distances of such a judge still rank.
Few pictures have little to say: a judge that cannot prove itself on them is blind, too.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.base import Metrics
from components.metrics.advice import FIX
from components.metrics.controls import CONTROLS, resized_down
from components.metrics.evidence import LEVEL, energy_test, sign_test
from components.metrics.frechet import frechet
from components.metrics.prdc import inside

See = Callable[[np.ndarray], np.ndarray]
"""Images (n, h, w, 3) uint8 -> features (n, d)."""
SPOILED = ("shuffled", "noise")
"""The controls that no judge may take for pictures; blurred ones are still pictures, though poor ones."""
_MOST = 500  # pictures in each half: the tests take all pairs, and more would prove nothing more
_N_DRAWS = 999
_SURE = 1 / (_N_DRAWS + 1)
_IN_WORDS = {"noise": "noise", "shuffled": "pictures with shuffled patches", "blurred": "blurred pictures"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Control:
    """One spoiled half, measured against the real half."""

    fd: float
    precision: float
    recall: float
    p_distance: float
    """P value of the energy test against the pictures themselves."""
    p_precision: float
    """P value of untouched pictures being precise more often."""


@dataclass(frozen=True)
class Halves:
    """Held-out pictures in random order, and their features: the first half is measured against the second.

    Shapes: images (2 n, h, w, 3) uint8, features (2 n, d).
    """

    images: np.ndarray
    features: np.ndarray

    @property
    def n(self) -> int:
        return len(self.images) // 2

    @property
    def untouched(self) -> np.ndarray:
        return self.features[: self.n]

    @property
    def real(self) -> np.ndarray:
        return self.features[self.n :]

    def fd(self, features: np.ndarray) -> float:
        """Frechet distance to the real half, of at most as many rows as the other half has."""
        return frechet(features[: self.n], self.real)

    def shrunk(self, see: See, sizes: Sequence[int]) -> list[float]:
        """Distance of the first half at each of these sides, in pixels: what equivalent_px() reads a distance by."""
        return [self.fd(see(resized_down(self.images[: self.n], size))) for size in sizes]


@dataclass(frozen=True)
class Sight:
    """What the judge made of every control."""

    n: int
    """Pictures in each half."""
    fd_real: float
    """Frechet distance between the halves: what real pictures score at this size."""
    precision_real: float
    recall_real: float
    controls: Mapping[str, Control]
    unlearned: str | None = None
    """Why a network that names labels has not learned to, a clause; None where it has, or names none."""

    @property
    def reasons(self) -> list[str]:
        """Why the judge is blind, as clauses; none when it can see."""
        found = [
            f"it tells {_IN_WORDS[name]} from pictures no better than chance would (p = {c.p_distance:.2g})"
            for name, c in self.controls.items()
            if name in SPOILED and c.p_distance > LEVEL
        ]
        if not any(self._tells(name) for name in SPOILED) and not self._beyond_doubt:
            shares = " and ".join(f"{self.controls[name].precision:.0%} of {_IN_WORDS[name]}" for name in SPOILED)
            found.append(f"{shares} pass for real, of real pictures {self.precision_real:.0%}")
        return found if self.unlearned is None else [*found, self.unlearned]

    @property
    def blind(self) -> bool:
        return bool(self.reasons)

    @property
    def precision_blind(self) -> bool:
        """Whether noise or shuffled patches pass for real one by one as often as real pictures do."""
        return not all(self._tells(name) for name in SPOILED)

    @property
    def _beyond_doubt(self) -> bool:
        """Whether no random exchange brought either spoiled set as far away as it is."""
        return all(self.controls[name].p_distance <= _SURE for name in SPOILED)

    def _tells(self, name: str) -> bool:
        return self.controls[name].p_precision <= LEVEL

    def metrics(self) -> Metrics:
        """Flat: judge_blind and precision_blind are 1 or 0; control_<number>_<set>."""
        found = {
            "judge_blind": float(self.blind),
            "precision_blind": float(self.precision_blind),
            "control_n": float(self.n),
            "control_fd_real": self.fd_real,
            "control_precision_real": self.precision_real,
            "control_recall_real": self.recall_real,
        }
        for name, control in self.controls.items():
            found |= {f"control_{number}_{name}": value for number, value in vars(control).items()}
        return found


def halves(images: Callable[[np.ndarray], np.ndarray], n: int, see: See, *, seed: int) -> Halves:
    """Two random halves of n held-out pictures, of at most 500 each. `images`: indices -> pictures.

    Of an odd number one is left out. Raises: ShapeError for fewer than four pictures.
    """
    order = np.random.default_rng(seed).permutation(n)[: 2 * min(n // 2, _MOST)]
    chosen = images(order)
    return Halves(chosen, see(chosen))


def look(split: Halves, see: See, *, k: int, seed: int, unlearned: str | None = None) -> Sight:
    """Measure the controls; k of precision and recall is lowered where the halves have too few pictures for it.

    `unlearned`: see Sight.
    """
    k = max(1, min(k, split.n - 1))
    real, fits = split.real, inside(split.untouched, split.real, k=k)
    controls = {}
    for name, spoil in CONTROLS.items():
        features = see(spoil(split.images, seed))
        half = features[: split.n]
        passes = inside(half, real, k=k)
        controls[name] = Control(
            fd=split.fd(half),
            precision=float(passes.mean()),
            recall=float(inside(real, half, k=k).mean()),
            p_distance=energy_test(split.features, features, n_draws=_N_DRAWS, seed=seed)[1],
            p_precision=sign_test(fits, passes),
        )
    recall = float(inside(real, split.untouched, k=k).mean())
    return Sight(split.n, split.fd(split.untouched), float(fits.mean()), recall, controls, unlearned)


def warn_if_blind(reasons: Sequence[str]) -> None:
    """Say it where whoever waits for the evaluation reads it."""
    if reasons:
        _log.warning("the judge is blind, so its numbers rank nothing: %s; %s", "; ".join(reasons), FIX)
