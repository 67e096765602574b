"""Stage text: the encoder of captions and prompts, what it makes of the captions, and a space shared with images."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from components.base import Batch, Metrics
from components.collection.images import ImageIndex, open_images
from components.encoders.base import constant_rows, load_encoder
from components.errors import DataError
from components.images.pictures import to_float
from components.interop.text import import_text_encoder
from components.metrics.retrieval import chance, recall
from components.nn.vit import seeded_init
from components.rng import BatchRng
from components.text.base import tidy
from components.text.bpe import built
from components.text.joint import Joint, Shared
from components.text.joint_training import JointTrainer, caption_numbers
from components.text.model import TextModel, save
from components.training.config import TrainConfig
from components.training.loop import train
from components.training.worker import Worker
from components.weights import assign, fetch_weights
from components.weights_file import WeightsFile
from flows.identity.artifact import Inputs, Output
from flows.stages.text.params import JointConfig, TextParams

_MOST = 4096
"""Captions, and held-out pictures, that are measured."""
_UNKNOWN = 0.2
_BATCH = 64
_RANKS = (1, 5)
_HEADS = "joint."
"""Beginning of the names of the heads in a text artifact's weights."""
_log = logging.getLogger(__name__)


def run(params: TextParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Writes config.json and weights; measures how the captions of the pictures in `base` are read.

    Raises: DataError where a joint space is to be trained and no picture has a caption; ConfigError where towers are
    to share a space and do not.
    """
    index = open_images(inputs["collect"], inputs.source, base_only=True, threads=worker.threads)
    captions = _captions(index)
    bpe = None if params.bpe is None else built(params.bpe, (caption for given in captions for caption in given))
    encoder = None if params.encoder is None else import_text_encoder(params.encoder)
    model, metrics = TextModel(encoder, states=params.states, bpe=bpe), Metrics()
    joint = params.joint
    if joint is not None and joint.train is not None:
        metrics = _fit(joint, joint.train, model, index, inputs, out, worker)
    elif joint is not None and joint.weights is not None:
        metrics = _import(joint, joint.weights, model, index, inputs, worker)
    elif joint is not None:
        held_out = _Pairs(model, index.split("val"), inputs, worker, _MOST)
        metrics = _retrieval(Shared(held_out.z.shape[1], model.frozen.dim), held_out)
    if worker.rank != 0:
        return {}
    save(params.encoder, model, out)
    return describe(model, captions) | metrics


def _captions(index: ImageIndex) -> list[list[str]]:
    """Of each picture, those that say something."""
    return [[caption for caption in map(tidy, given or ()) if caption] for given in index.column("caption")]


def describe(model: TextModel, captions: Sequence[Sequence[str]]) -> Metrics:
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
    lengths = model.lengths(distinct[:: -(-len(distinct) // _MOST)])
    unknown = sum(length.n_unknown for length in lengths) / max(1, sum(length.n_tokens for length in lengths))
    if unknown > _UNKNOWN:
        _log.warning(
            "the encoder does not know %.0f %% of the captions' tokens: is it of this language?", 100 * unknown
        )
    n_cut = sum(length.n_tokens > length.most for length in lengths)
    ids = {} if model.bpe is None else {"n_ids": float(model.bpe.n_ids)}
    return metrics | {
        "longest_caption": float(max(length.n_tokens for length in lengths)),
        "cut_share": n_cut / len(lengths),
        "unknown_share": unknown,
        **ids,
    }


class _Pairs:
    """The captioned pictures of a split, as frozen vectors."""

    def __init__(self, model: TextModel, index: ImageIndex, inputs: Inputs, worker: Worker, most: int | None) -> None:
        every = _captions(index)
        rows = [i for i, given in enumerate(every) if given][:most]
        encoder, parts = load_encoder(inputs["encoder"]).to(worker.device), list[Tensor]()
        for start in range(0, len(rows), _BATCH):
            images = index.load(rows[start : start + _BATCH], encoder.input_px)
            parts.append(encoder(to_float(images).to(worker.device)).cpu())
        z = torch.cat(parts) if parts else torch.empty(0, encoder.dim)
        blank = set(constant_rows(z).tolist())
        kept = [i for i in range(len(rows)) if i not in blank]
        self.z = z[kept]
        captions = [every[rows[i]] for i in kept]
        self.counts = np.array([len(given) for given in captions], np.int64)
        self.starts = np.cumsum(self.counts) - self.counts
        self.texts = [caption for given in captions for caption in given]
        self.numbers = caption_numbers(self.texts)
        self.t = model.read(self.texts).pooled if self.texts else torch.empty(0, model.frozen.dim)

    def __len__(self) -> int:
        return len(self.z)

    def fetch(self, indices: np.ndarray, rng: BatchRng) -> Batch:
        """The pictures with one of their captions each."""
        chosen = self.starts[indices] + (rng.uniform().cpu().numpy() * self.counts[indices]).astype(np.int64)
        return {
            "representation": self.z[indices],
            "text": self.t[chosen],
            "caption": self.numbers[chosen].float(),
        }


def _fit(
    config: JointConfig,
    how: TrainConfig,
    model: TextModel,
    index: ImageIndex,
    inputs: Inputs,
    out: Output,
    worker: Worker,
) -> Metrics:
    """Train the heads on train, measure retrieval on val; the model then has them."""
    pairs = _Pairs(model, index.split("train"), inputs, worker, None)
    if len(pairs) < 2 or len(set(pairs.texts)) < 2:
        fix = "caption the pictures (column text of metadata.csv), or set text.joint: null"
        raise DataError("a joint space needs pictures with different captions", got=len(pairs), fix=fix)
    with seeded_init(config.seed):
        joint = Joint(config.dim, image_dim=pairs.z.shape[1], text_dim=model.frozen.dim)
        trainable = JointTrainer(joint)
    curve = train(trainable, pairs.fetch, len(pairs), how, worker).curve
    model.joint = joint.cpu().eval()
    if worker.rank != 0:
        return {}
    out.write_json("plots/loss.json", curve)
    return {"loss": curve[-1]["loss"]} | _retrieval(joint, _Pairs(model, index.split("val"), inputs, worker, _MOST))


def _import(
    config: JointConfig, file: WeightsFile, model: TextModel, index: ImageIndex, inputs: Inputs, worker: Worker
) -> Metrics:
    """The heads of another project, which has this encoder and this text encoder; retrieval on val."""
    held_out = _Pairs(model, index.split("val"), inputs, worker, _MOST)
    joint = Joint(config.dim, image_dim=held_out.z.shape[1], text_dim=model.frozen.dim)
    tensors = fetch_weights(file, "a joint space", "text.joint.weights")
    heads = {name.removeprefix(_HEADS): t for name, t in tensors.items() if name.startswith(_HEADS)}
    assign(joint, heads, source=file.uri)
    model.joint = joint.eval()
    return _retrieval(joint, held_out)


@torch.no_grad()
def _retrieval(joint: Joint | Shared, held_out: _Pairs) -> Metrics:
    """From each caption of held-out pictures to the pictures; any picture that has it is right."""
    if len(held_out) < 2:
        return {"n_val": float(len(held_out))}
    _, first = np.unique(held_out.numbers.numpy(), return_index=True)
    similarity = joint.of_text(held_out.t[first]) @ joint.of_image(held_out.z).T
    owners = torch.from_numpy(np.repeat(np.arange(len(held_out)), held_out.counts))
    right = torch.zeros(len(first), len(held_out), dtype=torch.bool)
    right[held_out.numbers, owners] = True  # numbers are given in the order in which captions first come
    found = {f"retrieval_r{k}": recall(similarity, right, k) for k in _RANKS}
    by_chance = {f"retrieval_r{k}_chance": chance(right, k) for k in _RANKS}
    return found | by_chance | {"n_val": float(len(held_out)), "val_captions": float(len(first))}
