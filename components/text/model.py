"""A text model: what reads captions, and the fields that it gives; an artifact and a part of a bundle."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from components.base import Reader, Writer
from components.config import Config, added
from components.documents import read_bytes, validated
from components.errors import ConfigError
from components.fields import FieldSpec, mask_name
from components.text.base import Reading, TextEncoder, is_there, tidy
from components.text.bpe import BPE, Bpe
from components.text.config import TextEncoderConfig
from components.text.joint import Joint
from components.weights import load_weights, save_weights

CONFIG, WEIGHTS = "config.json", "weights.safetensors"
_AT_ONCE = 256
_OF_CAPTIONS: Any = {"ragged": True, "nullable": True, "choices": True}
_log = logging.getLogger(__name__)


class Length(NamedTuple):
    """How much of a text is read."""

    n_tokens: int
    most: int
    """Tokens that are read."""
    n_unknown: int


class TextModel(nn.Module):
    """Texts -> fields with their masks.

    Of a frozen encoder `text` (b, dim) and, with states, `tokens` (b, m, dim); of a byte-pair encoding `ids` (b, m).
    """

    def __init__(
        self, encoder: TextEncoder | None, *, states: bool, joint: Joint | None = None, bpe: Bpe | None = None
    ) -> None:
        super().__init__()
        self.encoder = None if encoder is None else encoder.requires_grad_(False).eval()
        self.states, self.joint, self.bpe = states, joint, bpe

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """Columns of the cache: of each picture's captions."""
        found = []
        if self.encoder is not None:
            dim = self.encoder.dim if self.joint is None else self.joint.dim
            found.append(FieldSpec(name="text", dtype="float32", shape=(dim,), **_OF_CAPTIONS))
        if self.encoder is not None and self.states:
            of_tokens = (self.encoder.max_tokens, self.encoder.state_dim)
            found.append(FieldSpec(name="tokens", dtype="float16", shape=of_tokens, **_OF_CAPTIONS))
        if self.bpe is not None:
            n_ids, of_ids = self.bpe.n_ids, (self.bpe.max_tokens,)
            found.append(FieldSpec(name="ids", dtype="int32", shape=of_ids, n_ids=n_ids, **_OF_CAPTIONS))
        return tuple(found)

    @torch.no_grad()
    def rows(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The fields as a batch holds them; an empty text is missing.

        Shapes: n texts -> text (n, dim), text.mask (n,) bool, tokens (n, m, dim), tokens.mask (n, m) bool, ids (n, m)
        int32 with -1 behind the last token, ids.mask (n,) bool.
        """
        tidied = [tidy(text) for text in texts]
        there = is_there(tidied)
        out = self._encoded(tidied, there) if self.encoder is not None else {}
        if self.bpe is not None:
            out |= {"ids": self.bpe.ids(tidied), mask_name("ids"): there}
        return out

    def _encoded(self, texts: Sequence[str], there: Tensor) -> dict[str, Tensor]:
        """What the frozen encoder gives."""
        frozen = [field for field in self.fields if field.name != "ids"]
        out = {field.name: torch.zeros(len(texts), *field.shape) for field in frozen}
        if bool(there.any()):
            reading = self.read([text for text in texts if text])
            pooled = reading.pooled if self.joint is None else self.joint.of_text(reading.pooled)
            made = {"text": pooled, "tokens": reading.states}
            for name, values in out.items():
                values[there] = made[name].float().cpu()
        masks = {mask_name("text"): there}
        if self.states:
            out["tokens"] = out["tokens"].half()
            masks[mask_name("tokens")] = out["tokens"].any(2)
        return out | masks

    @property
    def frozen(self) -> TextEncoder:
        """The frozen encoder. Raises: ConfigError where there is none."""
        if self.encoder is None:
            raise ConfigError("this text model has no frozen encoder", fix="set text.encoder")
        return self.encoder

    def read(self, texts: Sequence[str]) -> Reading:
        """What the frozen encoder makes of texts that are tidy and not empty, in parts. Raises: ConfigError."""
        parts = [self.frozen.read(texts[start : start + _AT_ONCE]) for start in range(0, len(texts), _AT_ONCE)]
        return Reading(
            torch.cat([part.pooled for part in parts]),
            torch.cat([part.states for part in parts]),
            [n for part in parts for n in part.n_tokens],
            [n for part in parts for n in part.n_unknown],
        )

    def warn_of_cuts(self, texts: Sequence[str]) -> None:
        """Logs which prompts are longer than the encoder reads, and which it does not know."""
        tidied = [tidy(text) for text in texts if tidy(text)]
        for text, length in zip(tidied, self.lengths(tidied), strict=True):
            if length.n_tokens > length.most:
                _log.warning("the text %.40r has %d tokens; the first %d are read", text, length.n_tokens, length.most)
            if length.n_unknown:
                what = "the text %.40r has %d of %d tokens that the encoder does not know"
                _log.warning(what, text, length.n_unknown, length.n_tokens)

    def lengths(self, texts: Sequence[str]) -> list[Length]:
        """How much of texts is read that are tidy and not empty: by the frozen encoder, without one by the other."""
        if self.encoder is not None and texts:
            reading, most = self.read(texts), self.encoder.max_tokens
            return [Length(n, most, unknown) for n, unknown in zip(reading.n_tokens, reading.n_unknown, strict=True)]
        return [] if self.bpe is None else [Length(n, self.bpe.max_tokens, 0) for n in self.bpe.counts(texts)]


class _Saved(Config):
    """config.json."""

    encoder: TextEncoderConfig | None
    states: bool
    image_dim: int | None
    """Dimension of the representations that a joint space is of; null: there is none."""
    joint_dim: int | None
    """Its width; null: that of the representations, which stay as they are."""
    bpe: int | None = added()
    """Tokens that are read by the byte-pair encoding of bpe.json; null: there is none."""


def save(config: TextEncoderConfig | None, model: TextModel, out: Writer) -> None:
    """Write the artifact's files."""
    joint, bpe = model.joint, model.bpe
    image_dim = None if joint is None else joint.image_dim
    joint_dim = None if joint is None or joint.own else joint.dim
    files = {} if model.encoder is None else dict(model.encoder.files)
    for name, data in (files | ({} if bpe is None else {BPE: bpe.data})).items():
        with out.file(name) as path:
            path.write_bytes(data)
    if config is not None:
        without = dict.fromkeys(type(config).model_fields.keys() & {"folder", "weights", "tokenizer"})
        config = config.model_copy(update=without)
    saved = _Saved(
        encoder=config,
        states=model.states,
        image_dim=image_dim,
        joint_dim=joint_dim,
        bpe=None if bpe is None else bpe.max_tokens,
    )
    with out.file(WEIGHTS) as path:
        save_weights(path, model.state_dict())
    out.write_json(CONFIG, saved.model_dump(mode="json"))


def load(artifact: Reader) -> TextModel:
    """What save() wrote, on CPU. Raises: WeightsError."""
    saved: _Saved = validated(TypeAdapter(_Saved), artifact.read_json(CONFIG), f"{artifact.path(CONFIG)}")
    encoder, joint = None if saved.encoder is None else saved.encoder.build(artifact), None
    if saved.image_dim is not None and encoder is not None:
        joint = Joint(saved.joint_dim, image_dim=saved.image_dim, text_dim=encoder.dim)
    bpe = None if saved.bpe is None else Bpe(read_bytes(artifact.path(BPE)), saved.bpe)
    model = TextModel(encoder, states=saved.states, joint=joint, bpe=bpe)
    load_weights(model, artifact.path(WEIGHTS))
    return model.eval().requires_grad_(False)
