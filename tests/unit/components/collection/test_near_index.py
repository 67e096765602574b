"""The index of hashes finds what comparing all of them finds."""

import numpy as np
import pytest

from components.collection import near_index
from components.collection.config import SplitConfig
from components.collection.duplicates import near_pairs
from components.collection.near_index import NearIndex
from components.collection.splits import Splitter


def _hashes(n: int, seed: int, *, alike: float) -> np.ndarray:
    """Random ones, and copies of a few in which some bits are turned. Shapes: -> (n, 2) uint64."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (n, 128), np.uint8)
    few = rng.integers(0, 2, (5, 128), np.uint8) * rng.integers(0, 2, (5, 1), np.uint8)  # some are blank
    copies = rng.random(n) < alike
    bits[copies] = few[rng.integers(0, 5, copies.sum())]
    for row in np.flatnonzero(copies):
        bits[row, rng.integers(0, 128, rng.integers(0, 12))] ^= 1
    return np.packbits(bits, axis=1).view(np.uint64)


@pytest.mark.parametrize("max_bits", [0, 1, 3, 4, 8, 9, 10, 32])
@pytest.mark.parametrize("alike", [0.1, 0.9])
def test_it_finds_exactly_what_is_near(max_bits: int, alike: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_index, "_TAIL", 60)
    monkeypatch.setattr(near_index, "_COMMON", 20)
    monkeypatch.setattr(near_index, "_AT_ONCE", 50)
    words = _hashes(2000, max_bits, alike=alike)
    values = (1 << np.arange(len(words)) % 8).astype(np.uint8)
    index, n_found = NearIndex(max_bits), 0
    for start in range(0, len(words), 100):
        new = words[start : start + 100]
        found = {(int(i), int(v)) for some, of in index.near(new) for i, v in zip(some, of, strict=True)}
        pairs = near_pairs(new, words[:start], max_bits)
        assert found == {(int(i), int(values[j])) for some, of in pairs for i, j in zip(some, of, strict=True)}
        n_found += len(found)
        index.add(new, values[start : start + 100])
    assert n_found > 20


def test_splits_do_not_depend_on_how_hashes_are_filed(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = [row.tobytes() for row in _hashes(1500, 3, alike=0.3)]
    dealt = []
    for tail in (40, 10**6):
        monkeypatch.setattr(near_index, "_TAIL", tail)
        splitter = Splitter(SplitConfig(seed=0, val_share=0.2, test_share=0.2, near_bits=4))
        names = [f"{i:064x}" for i in range(len(hashes))]
        dealt.append([s for i in range(0, 1500, 50) for s in splitter.assign(names[i : i + 50], hashes[i : i + 50])])
    assert dealt[0] == dealt[1]
    assert set(dealt[0]) >= {"train", "val", "test"}
