"""A text model: a frozen text encoder, and the fields that it gives; an artifact and a part of a bundle."""

import logging
from collections.abc import Sequence

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from components.base import Reader, Writer
from components.config import Config
from components.documents import validated
from components.fields import FieldSpec, mask_name
from components.text.base import Reading, TextEncoder, is_there, tidy
from components.text.config import TextEncoderConfig
from components.text.joint import Joint
from components.weights import load_weights, save_weights

CONFIG, WEIGHTS = "config.json", "weights.safetensors"
_AT_ONCE = 256
_log = logging.getLogger(__name__)


class TextModel(nn.Module):
    """Texts -> the fields `text` (b, dim) and, with states, `tokens` (b, m, dim), with their masks."""

    def __init__(self, encoder: TextEncoder, *, states: bool, joint: Joint | None = None) -> None:
        super().__init__()
        self.encoder, self.states, self.joint = encoder.requires_grad_(False).eval(), states, joint

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """Columns of the cache: of each picture's captions."""
        dim = self.encoder.dim if self.joint is None else self.joint.dim
        of_tokens = (self.encoder.max_tokens, self.encoder.state_dim)
        text = FieldSpec(name="text", dtype="float32", shape=(dim,), ragged=True, nullable=True, choices=True)
        tokens = FieldSpec(name="tokens", dtype="float16", shape=of_tokens, ragged=True, nullable=True, choices=True)
        return (text, tokens) if self.states else (text,)

    @torch.no_grad()
    def rows(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The fields as a batch holds them; an empty text is missing.

        Shapes: n texts -> text (n, dim), text.mask (n,) bool, tokens (n, m, dim), tokens.mask (n, m) bool.
        """
        tidied = [tidy(text) for text in texts]
        there = is_there(tidied)
        out = {field.name: torch.zeros(len(texts), *field.shape) for field in self.fields}
        if bool(there.any()):
            reading = self.read([text for text in tidied if text])
            pooled = reading.pooled if self.joint is None else self.joint.of_text(reading.pooled)
            made = {"text": pooled, "tokens": reading.states}
            for name, values in out.items():
                values[there] = made[name].float().cpu()
        masks = {mask_name("text"): there}
        if self.states:
            out["tokens"] = out["tokens"].half()
            masks[mask_name("tokens")] = out["tokens"].any(2)
        return out | masks

    def read(self, texts: Sequence[str]) -> Reading:
        """What the encoder makes of texts that are tidy and not empty, in parts."""
        parts = [self.encoder.read(texts[start : start + _AT_ONCE]) for start in range(0, len(texts), _AT_ONCE)]
        return Reading(
            torch.cat([part.pooled for part in parts]),
            torch.cat([part.states for part in parts]),
            [n for part in parts for n in part.n_tokens],
            [n for part in parts for n in part.n_unknown],
        )

    def warn_of_cuts(self, texts: Sequence[str]) -> None:
        """Logs which prompts are longer than the encoder reads, and which it does not know."""
        tidied = [tidy(text) for text in texts if tidy(text)]
        reading = self.read(tidied) if tidied else None
        for text, n, unknown in zip(tidied, *(reading[2:] if reading else ([], [])), strict=True):
            if n > self.encoder.max_tokens:
                _log.warning("the text %.40r has %d tokens; the first %d are read", text, n, self.encoder.max_tokens)
            if unknown:
                _log.warning("the text %.40r has %d of %d tokens that the encoder does not know", text, unknown, n)


class _Saved(Config):
    """config.json."""

    encoder: TextEncoderConfig
    states: bool
    image_dim: int | None
    """Dimension of the representations that a joint space is of; null: there is none."""
    joint_dim: int | None
    """Its width; null: that of the representations, which stay as they are."""


def save(config: TextEncoderConfig, model: TextModel, out: Writer) -> None:
    """Write the artifact's files."""
    joint = model.joint
    image_dim = None if joint is None else joint.image_dim
    joint_dim = None if joint is None or joint.own else joint.dim
    for name, data in model.encoder.files.items():
        with out.file(name) as path:
            path.write_bytes(data)
    without = dict.fromkeys(type(config).model_fields.keys() & {"folder", "weights", "tokenizer"})
    saved = _Saved(
        encoder=config.model_copy(update=without), states=model.states, image_dim=image_dim, joint_dim=joint_dim
    )
    with out.file(WEIGHTS) as path:
        save_weights(path, model.state_dict())
    out.write_json(CONFIG, saved.model_dump(mode="json"))


def load(artifact: Reader) -> TextModel:
    """What save() wrote, on CPU. Raises: WeightsError."""
    saved: _Saved = validated(TypeAdapter(_Saved), artifact.read_json(CONFIG), f"{artifact.path(CONFIG)}")
    encoder, joint = saved.encoder.build(artifact), None
    if saved.image_dim is not None:
        joint = Joint(saved.joint_dim, image_dim=saved.image_dim, text_dim=encoder.dim)
    model = TextModel(encoder, states=saved.states, joint=joint)
    load_weights(model, artifact.path(WEIGHTS))
    return model.eval().requires_grad_(False)
