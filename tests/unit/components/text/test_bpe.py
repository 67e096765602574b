"""Byte-pair encodings: learned on captions or read from a file, and the field that they give."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import ConfigError, WeightsError
from components.text.bpe import Bpe, built
from components.text.config import BpeConfig
from components.text.model import TextModel, load, save
from components.weights_file import WeightsFile
from flows.stages.text.params import TextParams
from tests.support.folders import FolderArtifact

CAPTIONS = ["a red apple", "a red bus", "a blue bus", "two red apples", "the bus"] * 3
CONFIG = BpeConfig(file=None, n_ids=270, max_tokens=6)
LEARNED = built(CONFIG, CAPTIONS)
MODEL = TextModel(None, states=False, bpe=LEARNED)


def test_frequent_words_are_one_token_and_any_text_has_tokens() -> None:
    assert LEARNED.n_ids == 270
    assert LEARNED.counts(["a red bus", ""]) == [3, 0]
    assert LEARNED.counts(["été 🍎"]) == [len("été 🍎".encode())]
    assert LEARNED.ids(["A Red BUS"]).equal(LEARNED.ids(["a red bus"]))


def test_what_is_learned_does_not_depend_on_the_order_of_captions() -> None:
    assert built(CONFIG, CAPTIONS[::-1]).data == LEARNED.data
    assert built(CONFIG, [caption.upper() for caption in CAPTIONS]).data == LEARNED.data


def test_rows_end_in_nothing_and_empty_texts_are_missing() -> None:
    (field,) = MODEL.fields
    assert (field.name, field.shape, field.n_ids) == ("ids", (6,), 270)
    rows = MODEL.rows(["a red bus", " ", "two red apples and a bus", "a  red\nbus"])
    assert rows["ids.mask"].tolist() == [True, False, True, True]
    assert rows["ids"].dtype == torch.int32
    assert rows["ids"][0, 3:].tolist() == [-1, -1, -1]
    assert (rows["ids"][1] == -1).all()
    assert (rows["ids"][2] >= 0).all()
    assert rows["ids"][3].equal(rows["ids"][0])
    assert int(rows["ids"].max()) < 270


def test_a_long_prompt_is_cut_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    n = LEARNED.counts(["a red bus a red bus a red bus"])[0]
    assert n > 6
    with caplog.at_level(logging.WARNING):
        MODEL.warn_of_cuts(["a red bus", "a red bus a red bus a red bus"])
    assert [record.getMessage() for record in caplog.records] == [
        f"the text 'a red bus a red bus a red bus' has {n} tokens; the first 6 are read"
    ]


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    out = FolderArtifact(tmp_path)
    save(None, MODEL, out)
    read = load(out)
    assert read.fields == MODEL.fields
    assert all(read.rows(CAPTIONS)[name].equal(values) for name, values in MODEL.rows(CAPTIONS).items())


def _file(path: Path, sha256: str) -> BpeConfig:
    return BpeConfig(file=WeightsFile(uri=str(path), sha256=sha256), n_ids=None, max_tokens=4)


def test_a_file_is_read_by_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(LEARNED.data)
    read = built(_file(path, hashlib.sha256(LEARNED.data).hexdigest()), ())
    assert read.ids(["a red bus"])[0, :3].equal(LEARNED.ids(["a red bus"])[0, :3])
    for digest, what in (("0" * 64, "is not recorded"), ("1" * 64, "is another one")):
        with pytest.raises(WeightsError, match=what):
            built(_file(path, digest), ())
    with pytest.raises(WeightsError, match="cannot be read"):
        built(_file(tmp_path / "none.json", "0" * 64), ())
    with pytest.raises(WeightsError, match=r"no tokenizer\.json"):
        Bpe(b"{}", 4)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"vocab": {"a": 0, "b": 10**9}, "merges": []}, "not numbered"),
        ({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}, "no token for every text"),
    ],
)
def test_a_file_whose_ids_cannot_be_embedded_is_refused(changes: dict[str, Any], what: str) -> None:
    values = json.loads(LEARNED.data)
    values["added_tokens"], values["model"] = [], values["model"] | changes
    if "type" in changes:
        values["model"] = changes
    with pytest.raises(WeightsError, match=what):
        Bpe(json.dumps(values).encode(), 4).ids(["a red bus"])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"bpe": None}, "reads nothing"),
        ({"states": True}, "states: false"),
        ({"bpe": {"file": None, "n_ids": None, "max_tokens": 4}}, "set n_ids or file"),
    ],
)
def test_a_section_that_reads_nothing_is_refused(changes: dict[str, Any], what: str) -> None:
    section = {"numerics": 1, "encoder": None, "states": False, "joint": None, "bpe": CONFIG.model_dump()}
    assert TextParams.model_validate(section).bpe == CONFIG
    with pytest.raises(ValueError, match=what):
        TextParams.model_validate(section | changes)


def test_without_a_frozen_encoder_there_is_no_embedding() -> None:
    with pytest.raises(ConfigError, match="no frozen encoder"):
        MODEL.read(["a"])
