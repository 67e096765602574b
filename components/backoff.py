"""How long to wait before asking a server again."""

import random
from collections.abc import Iterator

_dice = random.SystemRandom()  # jitter must differ between workers that were seeded alike


def backoff(first_s: float, longest_s: float) -> Iterator[float]:
    """Seconds to wait, endlessly: they double from `first_s` up to `longest_s`, each less a random share up to half."""
    wait_s = first_s
    while True:
        yield _dice.uniform(wait_s / 2, wait_s)
        wait_s = min(2 * wait_s, longest_s)
