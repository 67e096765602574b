"""Train, val or test: decided by content, near-duplicates together, and never again once decided.

No two pictures within `near_bits` of each other ever lie in different splits, and no two of one named group. Chunks
come in order:

1. The new pictures of a chunk that are near each other or in one group, directly or through others of the chunk, form
   a family.
2. A family with no tie to an earlier picture goes where a hash of its smallest group's name says, or if none of it is
   in a group, of its smallest sha256: a group keeps its split when its pictures are drawn anew.
3. A family near earlier pictures of one split, or of their groups, joins that split.
4. A family that would link earlier pictures of different splits is taken apart: its pictures are placed one by one in
   order, each by rules 2 and 3, and one that is itself tied to two splits is left out of all (`none`). Nothing links to
   it later.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from components.collection.config import SplitConfig
from components.collection.duplicates import as_words, near_pairs
from components.collection.near_index import NearIndex
from components.rng import derive_seed

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
LEFT_OUT = "none"


class Splitter:
    """Assigns chunk after chunk; remembers 25 bytes per different picture and 8 for each of near_bits, and the split of
    each group."""

    def __init__(self, config: SplitConfig) -> None:
        self.config = config
        self.n_near = 0
        """Pictures that were near an earlier one, or another of their chunk, when they came."""
        self._seen = NearIndex(config.near_bits)
        self._groups: dict[str, int] = {}

    def assign(
        self, sha256s: Sequence[str], hashes: Sequence[bytes], groups: Sequence[str | None] | None = None
    ) -> list[str]:
        """The split of each picture of a new chunk, `none` for those left out. `groups`: None where there is none."""
        new = _Newcomers(sha256s, hashes, groups or [None] * len(hashes), self.config.near_bits)
        touched = self._touched(new.words)
        placed = np.full(len(new.words), _NOWHERE, np.uint8)
        for family in new.families():
            ties = np.array([touched[i] | self._bits_of(new.groups[i]) for i in family], np.uint8)
            if _is_single(int(np.bitwise_or.reduce(ties))):
                placed[family] = split = self._choose(ties, new.names(family))
                self._groups.update((group, split) for i in family for group in new.groups[i])
                continue
            for i in family:  # rule 4
                near = np.append(_BITS[placed[new.links[i]]], [touched[i], self._bits_of(new.groups[i])])
                if _is_single(int(np.bitwise_or.reduce(near))):
                    placed[i] = split = self._choose(near, new.names([i]))
                    self._groups.update((group, split) for group in new.groups[i])
        self.n_near += sum(
            len(shas) for i, shas in enumerate(new.sha256s) if touched[i] or new.links[i] or len(shas) > 1
        )
        stays = placed != _NOWHERE
        self._seen.add(new.words[stays], _BITS[placed[stays]])
        return [(*SPLITS, LEFT_OUT)[placed[new.index[h]]] for h in hashes]

    def _touched(self, words: np.ndarray) -> np.ndarray:
        """Bit mask of the splits that each newcomer has a near picture in. Shapes: (n, 2) uint64 -> (n,) uint8."""
        masks = np.zeros(len(words), np.uint8)
        for i, bits in self._seen.near(words):
            np.bitwise_or.at(masks, i, bits)
        return masks

    def _bits_of(self, groups: Iterable[str]) -> int:
        """Bit mask of the splits that these groups are in."""
        return sum({int(_BITS[self._groups[group]]) for group in groups if group in self._groups})

    def _choose(self, near: np.ndarray, names: Iterable[str]) -> int:
        """The one split that `near` names, or else what the content says."""
        mask = int(np.bitwise_or.reduce(near))
        if mask:
            return mask.bit_length() - 1
        u = derive_seed(self.config.seed, "split", min(names)) / 2**63
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

    def __init__(
        self, sha256s: Sequence[str], hashes: Sequence[bytes], groups: Sequence[str | None], near_bits: int
    ) -> None:
        self.index = {h: i for i, h in enumerate(dict.fromkeys(hashes))}
        self.words = as_words(list(self.index))
        self.sha256s: list[list[str]] = [[] for _ in self.index]
        self.groups: list[set[str]] = [set() for _ in self.index]
        for sha256, h, group in zip(sha256s, hashes, groups, strict=True):
            self.sha256s[self.index[h]].append(sha256)
            if group is not None:
                self.groups[self.index[h]].add(group)
        self.links: list[list[int]] = [[] for _ in self.index]
        for i, j in near_pairs(self.words, self.words, near_bits):
            for a, b in zip(i.tolist(), j.tolist(), strict=True):
                if a != b:
                    self.links[a].append(b)

    def names(self, members: Iterable[int]) -> list[str]:
        """What the place of these pictures depends on: their groups, or where there is none their digests."""
        some = list(members)
        return [g for i in some for g in self.groups[i]] or [sha256 for i in some for sha256 in self.sha256s[i]]

    def families(self) -> list[list[int]]:
        """Connected components, each in order."""
        kin: dict[str, list[int]] = {}
        for i, groups in enumerate(self.groups):
            for group in groups:
                kin.setdefault(group, []).append(i)
        seen: set[int] = set()
        families = []
        for start in range(len(self.links)):
            if start in seen:
                continue
            family, todo = [], [start]
            seen.add(start)
            while todo:
                i = todo.pop()
                family.append(i)
                tied = [*self.links[i], *(j for group in self.groups[i] for j in kin.pop(group, ()))]
                fresh = [j for j in tied if j not in seen]
                seen.update(fresh)
                todo += fresh
            families.append(sorted(family))
        return families
