"""How often the gate promotes: challengers of known quality against a champion of known quality, simulated.

python -m benchmarks.gate_power [--trials 200]

Features are normal; a model's mean is off by s in one direction, so its true distance is s^2, plus the bias that every
finite set has. Row i of both models shares its noise, correlated by 0.5, as images of one seed do. "Worse by" is in
margins: at 1.0 the challenger is exactly as bad as the margin forbids, so whatever is promoted there is an error.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from components.metrics.comparison import compare
from components.metrics.frechet import frechet

DIM, N_DRAWN, N_REAL, N_BOOTSTRAP = 8, 1000, 400, 100
MARGIN, LEVEL, CHAMPION = 0.25, 0.95, 1.0
WORSE_BY = (-1.0, 0.0, 0.5, 0.75, 1.0, 1.25, 2.0)
CORRELATION = 0.5


def bias(rng: np.random.Generator, trials: int = 50) -> float:
    """Mean distance of two sets of the same distribution."""
    sets = ((rng.normal(size=(N_DRAWN, DIM)), rng.normal(size=(N_REAL, DIM))) for _ in range(trials))
    return float(np.mean([frechet(a, b) for a, b in sets]))


def promoted(worse_by: float, offset: float, rng: np.random.Generator, seed: int) -> bool:
    """One challenger whose true distance exceeds the champion's by worse_by margins."""
    shared, own, theirs = (rng.normal(size=(N_DRAWN, DIM)) for _ in range(3))
    champion, challenger = (np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * noise for noise in (theirs, own))
    champion[:, 0] += np.sqrt(CHAMPION)
    challenger[:, 0] += np.sqrt(CHAMPION + worse_by * MARGIN * (CHAMPION + offset))
    real = rng.normal(size=(N_REAL, DIM))
    d = compare(champion, challenger, real, n_draws=N_BOOTSTRAP, level=LEVEL, seed=seed)
    return d.high <= MARGIN * d.first


def shares(trials: int) -> Iterator[tuple[float, float]]:
    """(worse by, share promoted)."""
    rng = np.random.default_rng(0)
    offset = bias(rng)
    for worse_by in WORSE_BY:
        yield worse_by, float(np.mean([promoted(worse_by, offset, rng, i) for i in range(trials)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=200)
    trials = parser.parse_args().trials
    print(f"{N_DRAWN} drawn, {N_REAL} real, {DIM} features, margin {MARGIN:.0%}, level {LEVEL:.0%}, {trials} trials")
    print("| worse by (margins) | promoted |\n|---|---|")
    for worse_by, share in shares(trials):
        print(f"| {worse_by:g} | {share:.1%} |")


if __name__ == "__main__":
    main()
