"""Stage text: the encoder of captions and prompts, and what it makes of the captions that are there."""

import logging
from collections.abc import Sequence

from components.base import Metrics
from components.collection.images import open_images
from components.text.base import tidy
from components.text.model import TextModel, save
from components.training.worker import Worker
from flows.identity.artifact import Inputs, Output
from flows.stages.text.params import TextParams

_MOST = 4096
"""Captions that are measured."""
_UNKNOWN = 0.2
_log = logging.getLogger(__name__)


def run(params: TextParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Writes config.json and weights; measures how the captions of the pictures in `base` are read."""
    if worker.rank != 0:
        return {}
    index = open_images(inputs["collect"], inputs.source, base_only=True)
    model = TextModel(params.encoder.build(), states=params.states)
    save(params.encoder, model, out)
    captions = [[tidy(caption) for caption in given or ()] for given in index.column("caption")]
    return _measure(model, [[caption for caption in given if caption] for given in captions])


def _measure(model: TextModel, captions: Sequence[Sequence[str]]) -> Metrics:
    """`captions`: of each picture."""
    n_captioned, distinct = sum(map(bool, captions)), sorted({caption for given in captions for caption in given})
    metrics: Metrics = {
        "captioned": float(n_captioned),
        "captioned_share": n_captioned / max(1, len(captions)),
        "distinct_captions": float(len(distinct)),
    }
    if not distinct:
        _log.warning("no picture has a caption: what is conditioned on text learns nothing from these pictures")
        return metrics
    read = model.read(distinct[:: -(-len(distinct) // _MOST)])
    unknown = sum(read.n_unknown) / max(1, sum(read.n_tokens))
    if unknown > _UNKNOWN:
        _log.warning(
            "the text encoder does not know %.0f %% of the captions' tokens: is it of this language?", 100 * unknown
        )
    n_cut = sum(n > model.encoder.max_tokens for n in read.n_tokens)
    return metrics | {
        "longest_caption": float(max(read.n_tokens)),
        "cut_share": n_cut / len(read.n_tokens),
        "unknown_share": unknown,
    }
