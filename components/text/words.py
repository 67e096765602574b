"""Text as a bag of words, of their parts and of neighbors, by hashing (Weinberger et al. 2009, 0902.2206; Bojanowski et
al. 2017, 1607.04606 for the parts)."""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from components.nn.timestep import sinusoids
from components.rng import derive_seed
from components.text.base import Reading, TextEncoder, scaled
from components.text.config import WordsConfig

_N_ROWS = 8192
_PARTS = (3, 4, 5)
"""Lengths of the parts of a word, in characters, its two ends among them."""
_WORD = re.compile(r"\w+|[^\w\s]")


class Words(TextEncoder):
    """No word is unknown. Two words are alike as far as they share parts, so a plural or a typing error is near."""

    table: Tensor
    places: Tensor

    def __init__(self, config: WordsConfig) -> None:
        super().__init__()
        self.dim = self.state_dim = config.dim
        self.max_tokens, self.files = config.max_tokens, {}
        rng = torch.Generator().manual_seed(derive_seed(config.seed, "words"))
        self.register_buffer("table", torch.randn(_N_ROWS, config.dim, generator=rng))
        self.register_buffer("places", sinusoids(torch.arange(config.max_tokens), config.dim), persistent=False)

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Reading:
        split = [_WORD.findall(text.casefold()) for text in texts]
        states = self.table.new_zeros(len(texts), self.max_tokens, self.dim)
        pooled = self.table.new_zeros(len(texts), self.dim)
        for i, words in enumerate(split):
            read = words[: self.max_tokens]
            vectors = torch.stack([self._word(word) for word in read])
            pairs = [_row(f"{a} {b}") for a, b in pairwise(read)]
            pooled[i] = scaled(vectors.sum(0) + self.table[pairs].sum(0))
            states[i, : len(read)] = scaled(scaled(vectors) + self.places[: len(read)])
        return Reading(pooled, states, [len(words) for words in split], [0] * len(texts))

    def _word(self, word: str) -> Float[Tensor, " dim"]:
        """Of unit scale: the word's own row, and as much of its parts."""
        whole, parts = _rows(word)
        out: Tensor = (self.table[whole] + self.table[list(parts)].sum(0) / len(parts) ** 0.5) / 2**0.5
        return out


@lru_cache(maxsize=65_536)
def _rows(word: str) -> tuple[int, tuple[int, ...]]:
    """Rows of the word and of its parts, at least one."""
    marked = f"<{word}>"
    parts = [marked[i : i + n] for n in _PARTS for i in range(len(marked) - n + 1)]
    return _row(word), tuple(map(_row, parts or [marked]))


def _row(feature: str) -> int:
    return int.from_bytes(hashlib.blake2b(feature.encode(errors="replace"), digest_size=8).digest(), "big") % _N_ROWS
