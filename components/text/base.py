"""What a frozen text encoder is.

n: texts, m: the most tokens that are read of one, L: tokens of a text.
"""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Reading(NamedTuple):
    """What an encoder makes of n texts."""

    pooled: Float[Tensor, "n dim"]
    """Of norm sqrt(dim), so that coordinates have unit scale."""
    states: Float[Tensor, "n m state_dim"]
    """Of each token, in order; zeros after the last."""
    n_tokens: list[int]
    """Tokens of each text before it was cut to m."""
    n_unknown: list[int]
    """Tokens of each text that the encoder does not know."""


class TextEncoder(nn.Module, ABC):
    """The base of a text encoder, which is frozen. What it makes of a text does not depend on the others."""

    dim: int
    """Of the embedding."""
    state_dim: int
    """Of the states."""
    max_tokens: int
    files: Mapping[str, bytes]
    """What a saved encoder has besides its weights, by file name."""

    @abstractmethod
    def read(self, texts: Sequence[str]) -> Reading:
        """Texts as tidy() leaves them, none of them empty."""


def tidy(text: str) -> str:
    """The text in one line, composed characters, single spaces; "" for what has nothing to read."""
    spaced = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    return " ".join(unicodedata.normalize("NFC", spaced).split())


def scaled(x: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n dim"]:
    """Rows of norm sqrt(dim)."""
    out: Tensor = nn.functional.normalize(x, dim=-1) * x.shape[-1] ** 0.5
    return out


def is_there(texts: Sequence[str]) -> Bool[Tensor, " n"]:
    """Which texts are not empty."""
    return torch.tensor([bool(text) for text in texts], dtype=torch.bool)
