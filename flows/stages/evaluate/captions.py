"""Samples of captions: what each was asked for, and whether a judge that conditioned nothing finds it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import TypeAdapter
from torch import Tensor

from components.base import Metrics
from components.cache.reader import open_cache
from components.cache.samples import Samples, oracle_rows
from components.collection.images import ImageIndex
from components.conditions.config import ConditionConfig
from components.fields import TEXT_FIELDS
from components.metrics.captions import Captioned, Labeled, caption_metrics, class_metrics, fit_judge, numbered
from components.rng import derive_seed
from components.spacing import evenly_spaced
from components.text.base import tidy
from components.text.config import WordsConfig
from flows.identity.artifact import Inputs

_MOST = 2000
"""Real pictures, and so candidate captions, that are compared."""
_MOST_PROBED = 10_000
"""Training pictures from which the probe learns the classes."""
_WIDTH, _WORDS = 512, 128

See = Callable[[ImageIndex, np.ndarray], np.ndarray]
"""Pictures of a split, and rows of it -> features (n, d)."""


class Asked(NamedTuple):
    """What each sample is of: the caption of a held-out picture, and the picture's class, -1 where none is known."""

    captions: list[str]
    classes: np.ndarray


def asked(samples: Samples, inputs: Inputs) -> Asked | None:
    """None where samples are of no captions."""
    info = samples.info
    if "encode" not in info.parents or info.sampling["representations"] == "oracle":
        return None
    conditions = [one for made in (info.rdm, info.pixels) if made is not None for one in made["model"]["conditions"]]
    fields = (TypeAdapter(ConditionConfig).validate_python(one).field for one in conditions)
    read = tuple(field for field in dict.fromkeys(fields) if field in TEXT_FIELDS)
    if not read:
        return None
    held_out = open_cache(inputs["encode"]).held_out("val", read).having(read)
    rows = oracle_rows(len(held_out), 0, info.n, seed=info.sampling["seed"])
    classes = np.full(info.n, -1) if held_out.labels is None else held_out.labels[rows]
    return Asked([tidy((captions or [""])[0]) for captions in held_out.captions(rows)], classes)


def measure_captions(
    asked: Asked, drawn: np.ndarray, index: ImageIndex, train: np.ndarray, see: See, *, seed: int
) -> Metrics:
    """Nothing where there are fewer than two captions. `drawn`, `train`: features of samples and of training pictures.

    Texts are bags of words and their parts, of a seed of this judge's own.
    """
    words = WordsConfig(kind="words", dim=_WIDTH, max_tokens=_WORDS, seed=derive_seed(seed, "captions") % 2**31).build()

    def read(texts: Sequence[str]) -> Tensor:
        out: Tensor = words.read(texts).pooled / _WIDTH**0.5
        return out

    training, held_out = index.split("train"), index.split("val")
    known, fitted = _first(training)
    rows, own = _first(held_out)
    chosen = evenly_spaced(len(rows), _MOST)
    rows, own = rows[chosen], [own[i] for i in chosen]
    candidates = list(dict.fromkeys(own))
    number = numbered(asked.captions, candidates)
    if len(known) < 2 or len(candidates) < 2 or not (number >= 0).any():
        return {}
    judge, seen = fit_judge(train[known], read(fitted)), see(held_out, rows)
    real = Captioned(seen, numbered(own, candidates))
    found = caption_metrics(judge, read(candidates), Captioned(drawn[number >= 0], number[number >= 0]), real)
    if training.labels is None or held_out.labels is None:
        return found
    some = evenly_spaced(len(train), _MOST_PROBED)
    labeled = Labeled(train[some], training.labels[some])
    return found | class_metrics(labeled, Labeled(drawn, asked.classes), Labeled(seen, held_out.labels[rows]))


def _first(split: ImageIndex) -> tuple[np.ndarray, list[str]]:
    """Rows with a caption, and the first of each, which is the one that samples are of."""
    first = [tidy((captions or [""])[0]) for captions in split.column("caption")]
    rows = np.array([i for i, caption in enumerate(first) if caption], np.int64)
    return rows, [first[i] for i in rows]
