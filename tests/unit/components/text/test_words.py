"""The text encoder that needs no file, and what a text model makes of texts."""

import logging
from pathlib import Path

import pytest
import torch

from components.text.base import tidy
from components.text.config import WordsConfig
from components.text.model import TextModel, load, save
from tests.support.folders import FolderArtifact

CONFIG = WordsConfig(kind="words", dim=64, max_tokens=6, seed=0)
MODEL = TextModel(CONFIG.build(), states=True)


def _cosine(a: str, b: str) -> float:
    x, y = MODEL.rows([a, b])["text"]
    return float(torch.cosine_similarity(x, y, dim=0))


def test_alike_are_texts_that_share_words_or_their_parts() -> None:
    assert _cosine("a red apple", "a red apples") > _cosine("a red apple", "a red bicycle") > 0.4
    assert _cosine("Red  APPLE", "red apple") == pytest.approx(1)
    assert _cosine("dog bites man", "man bites dog") < 0.99  # pairs of neighbors
    assert abs(_cosine("apple", "winter")) < 0.4


def test_rows_do_not_depend_on_their_neighbors_and_have_unit_scale() -> None:
    texts = ["one", "two words", "🍎 été", "", "a b c d e f g h"]
    rows = MODEL.rows(texts)
    for i, text in enumerate(texts):
        alone = MODEL.rows([text])
        assert all(torch.equal(alone[name][0], rows[name][i]) for name in rows)
    assert rows["text.mask"].tolist() == [True, True, True, False, True]
    assert rows["tokens.mask"].sum(1).tolist() == [1, 2, 2, 0, 6]
    torch.testing.assert_close(rows["text"].square().mean(1), torch.tensor([1.0, 1, 1, 0, 1]))
    assert not rows["text"][3].any()
    assert [field.shape for field in MODEL.fields] == [(64,), (6, 64)]


def test_order_stands_in_the_states_alone() -> None:
    one, other = MODEL.rows(["red red blue", "red blue red"])["tokens"]
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[2])


def test_a_long_prompt_is_cut_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        MODEL.warn_of_cuts(["a short one", "", "one two three four five six seven"])
    assert [record.getMessage() for record in caplog.records] == [
        "the text 'one two three four five six seven' has 7 tokens; the first 6 are read"
    ]


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    out = FolderArtifact(tmp_path)
    save(CONFIG, MODEL, out)
    before, after = MODEL.rows(["a cat"]), load(out).rows(["a cat"])
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_tidy() -> None:
    assert tidy(" a\tb\n\u2028c\x00 ") == "a b c"
    assert tidy("e\u0301") == "é"
    assert tidy("\n \t") == ""
