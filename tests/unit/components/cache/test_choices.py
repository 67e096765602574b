"""Fields of several values per picture, of which a batch holds one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.cache.reader import CacheInfo, cache_fields, open_cache
from components.cache.shards import ShardWriter, shard_name
from components.conditions.config import TextConfig
from components.conditions.embedders import embedder
from components.conditions.ports import States
from components.errors import ConfigError
from components.fields import FieldSpec
from components.rng import BatchRng
from components.target import TargetSpec
from tests.support.folders import FolderArtifact

TARGET = TargetSpec(space="pixels", shape=(1, 2, 2), dtype="uint8", n_codes=None, image_px=2)
TEXT = FieldSpec(name="text", dtype="float32", shape=(2,), ragged=True, nullable=True, choices=True)
TOKENS = FieldSpec(name="tokens", dtype="float16", shape=(3, 2), ragged=True, nullable=True, choices=True)
COUNTS = (2, 0, 3, 1)
"""Captions of each picture; the last token is padding in all of them."""


def _cache(root: Path) -> FolderArtifact:
    """Four train pictures of two views each. Caption j of picture i is 10 i + j + 1 everywhere."""
    out, fields = FolderArtifact(root), cache_fields(3, TARGET, None, (TEXT, TOKENS))
    with out.file(shard_name("c00000")) as path, ShardWriter(path, fields) as shard:
        for i, count in enumerate(COUNTS):
            said = np.arange(count)[:, None] + 10.0 * i + 1
            text = said.repeat(2, 1).astype(np.float32) if count else None
            tokens = None if text is None else np.stack([text, text, 0 * text], 1).astype(np.float16)
            rows = [
                {"key": f"{i}.png", "sha256": "0" * 64, "split": "train", "view": view, "class": None, "caption": None}
                for view in range(2)
            ]
            z = np.full((2, 3), i, np.float32)
            target = np.zeros((2, 1, 2, 2), np.uint8)
            shard.add(rows, {"representation": z, "target": target, "text": [text, None], "tokens": [tokens, None]})
    info = CacheInfo(fields=fields, target=TARGET, n_views=2, counts={}, chunks=["c00000"])
    out.write_json("cache.json", info.model_dump(mode="json"))
    return out


def test_training_draws_a_caption_and_its_own_states_and_plain_rows_have_the_first(tmp_path: Path) -> None:
    rows = open_cache(_cache(tmp_path)).training()
    index, seen = np.array([0, 1, 2, 3] * 8), [set[float]() for _ in COUNTS]
    for seed in range(4):
        batch = rows.fetch(index, BatchRng(seed, len(index)))
        assert torch.equal(batch["tokens"][:, 0], batch["text"].half())
        assert batch["text.mask"].tolist() == [True, False, True, True] * 8
        assert batch["tokens.mask"][:4].tolist() == [[True, True, False], [False] * 3, *[[True, True, False]] * 2]
        for i, text in zip(index, batch["text"], strict=True):
            seen[i].add(float(text[0]))
    assert seen == [{1, 2}, {0}, {21, 22, 23}, {31}]
    for view in range(2):
        assert rows.rows(np.arange(4), view)["text"][:, 0].tolist() == [1, 0, 21, 31]
    assert len(rows.having(["text"])) == 3
    assert rows.field("text", np.arange(4)).shape == (4, 2)


def test_a_condition_reads_one_caption_or_its_tokens(tmp_path: Path) -> None:
    cache = open_cache(_cache(tmp_path))
    batch = cache.training().rows(np.arange(4))
    text = TextConfig(kind="text", port="vector", drop_prob=0.5, missing="skip")
    vector = embedder(text, cache.fields, widths=(5,), std=None)
    torch.testing.assert_close(vector(batch, None)[1:2], vector.nulls(1))
    states = embedder(text.model_copy(update={"port": "sequence"}), cache.fields, widths=(5,), std=None)(batch, None)
    assert isinstance(states, States)
    assert states.mask.sum(1).tolist() == [2, 1, 2, 2]  # the null is one row


def test_without_a_trained_null_a_text_is_asked_for(tmp_path: Path) -> None:
    fields = open_cache(_cache(tmp_path)).fields
    text = TextConfig(kind="text", port="vector", drop_prob=0.0, missing="skip")
    assert TextConfig.tiny().may_be_absent
    with pytest.raises(ConfigError, match="needs a text"):
        embedder(text, fields, widths=(5,), std=None).filled({}, BatchRng(0, 2))


def test_fields_without_choices_are_dumped_as_ever() -> None:
    assert "choices" not in FieldSpec(name="a", dtype="int32", shape=()).model_dump(mode="json")
    assert FieldSpec.model_validate(TEXT.model_dump(mode="json")) == TEXT
