"""Train, val or test: decided by content, near-duplicates together, and never again once decided.

No two pictures within `near_bits` of each other ever lie in different splits. Chunks come in order:

1. The new pictures of a chunk that are near each other, directly or through others of the chunk, form a group.
2. A group near no earlier picture goes where a hash of its smallest sha256 says.
3. A group near earlier pictures of one split joins that split.
4. A group that would link earlier pictures of different splits is taken apart: its pictures are placed one by one in
   order, each by rules 2 and 3, and one that is itself near two splits is left out of all (`none`). Nothing links to it
   later.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from components.collection.config import SplitConfig
from components.collection.duplicates import as_words, near_pairs
from components.rng import derive_seed

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
LEFT_OUT = "none"


class Splitter:
    """Assigns chunk after chunk; remembers 17 bytes per different picture."""

    def __init__(self, config: SplitConfig) -> None:
        self.config = config
        self.n_near = 0
        """Pictures that were near an earlier one, or another of their chunk, when they came."""
        self._words = np.empty((0, 2), np.uint64)
        self._splits = np.empty(0, np.uint8)

    def assign(self, sha256s: Sequence[str], hashes: Sequence[bytes]) -> list[str]:
        """The split of each picture of a new chunk, `none` for those left out."""
        new = _Newcomers(sha256s, hashes, self.config.near_bits)
        touched = self._touched(new.words)
        placed = np.full(len(new.words), _NOWHERE, np.uint8)
        for group in new.groups():
            if _is_single(int(np.bitwise_or.reduce(touched[group]))):
                placed[group] = self._choose(touched[group], [sha for i in group for sha in new.sha256s[i]])
                continue
            for i in group:  # rule 4
                neighbors = placed[new.links[i]]
                near = np.append(_BITS[neighbors], touched[i])
                if _is_single(int(np.bitwise_or.reduce(near))):
                    placed[i] = self._choose(near, new.sha256s[i])
        self.n_near += sum(
            len(shas) for i, shas in enumerate(new.sha256s) if touched[i] or new.links[i] or len(shas) > 1
        )
        stays = placed != _NOWHERE
        self._words = np.concatenate([self._words, new.words[stays]])
        self._splits = np.concatenate([self._splits, placed[stays]])
        return [(*SPLITS, LEFT_OUT)[placed[new.index[h]]] for h in hashes]

    def _touched(self, words: np.ndarray) -> np.ndarray:
        """Bit mask of the splits that each newcomer has a near picture in. Shapes: (n, 2) uint64 -> (n,) uint8."""
        masks = np.zeros(len(words), np.uint8)
        for i, j in near_pairs(words, self._words, self.config.near_bits):
            np.bitwise_or.at(masks, i, _BITS[self._splits[j]])
        return masks

    def _choose(self, near: np.ndarray, sha256s: Sequence[str]) -> int:
        """The one split that `near` names, or else what the content says."""
        mask = int(np.bitwise_or.reduce(near))
        if mask:
            return mask.bit_length() - 1
        u = derive_seed(self.config.seed, "split", min(sha256s)) / 2**63
        if u < self.config.test_share:
            return SPLITS.index("test")
        return SPLITS.index("val" if u < self.config.test_share + self.config.val_share else "train")


_NOWHERE = len(SPLITS)
_BITS = np.array([1, 2, 4, 0], np.uint8)


def _is_single(mask: int) -> bool:
    """At most one split."""
    return mask & (mask - 1) == 0


class _Newcomers:
    """The pictures of one chunk by hash: those with equal hashes share their fate."""

    def __init__(self, sha256s: Sequence[str], hashes: Sequence[bytes], near_bits: int) -> None:
        self.index = {h: i for i, h in enumerate(dict.fromkeys(hashes))}
        self.words = as_words(list(self.index))
        self.sha256s: list[list[str]] = [[] for _ in self.index]
        for sha256, h in zip(sha256s, hashes, strict=True):
            self.sha256s[self.index[h]].append(sha256)
        self.links: list[list[int]] = [[] for _ in self.index]
        for i, j in near_pairs(self.words, self.words, near_bits):
            for a, b in zip(i.tolist(), j.tolist(), strict=True):
                if a != b:
                    self.links[a].append(b)

    def groups(self) -> list[list[int]]:
        """Connected components, each in order."""
        seen: set[int] = set()
        groups = []
        for start in range(len(self.links)):
            if start in seen:
                continue
            group, todo = [], [start]
            seen.add(start)
            while todo:
                i = todo.pop()
                group.append(i)
                fresh = [j for j in self.links[i] if j not in seen]
                seen.update(fresh)
                todo += fresh
            groups.append(sorted(group))
        return groups
