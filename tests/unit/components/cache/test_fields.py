"""Fields of any kind: ragged ones are padded with a mask, nullable ones have one, shards are what the fields say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.cache.reader import CacheInfo, open_cache
from components.cache.shards import ShardWriter
from components.errors import ArtifactError, ConfigError, ShapeError
from components.fields import FieldSpec, of_fields
from tests.support.caches import LENGTHS, LOW_RES, TEXT, TOKENS, make_cache, values_of
from tests.support.generators import PIXEL

TRAINED = [i for i in range(16) if i % 8 not in (4, 7)]


@pytest.mark.parametrize("ram_bytes", [0, 2**30])
def test_what_is_written_is_read_padded_and_with_masks(tmp_path: Path, ram_bytes: int) -> None:
    train = open_cache(make_cache(tmp_path, PIXEL), ram_bytes=ram_bytes).training()
    chosen = [11, 0, 3, 0, 2]
    batch = train.rows(chosen)
    assert set(batch) == {
        *("representation", "target", "low_res", "text", "tokens", "count"),
        *("text.mask", "tokens.mask", "count.mask"),
    }
    assert batch["tokens"].shape == (5, 3, 4)  # the longest row of the cache, not of the batch
    assert batch["count"].shape == (5,)
    for row, i in enumerate(TRAINED[j] for j in chosen):
        wanted = values_of(i, PIXEL)
        for name in ("representation", "target", "low_res"):
            assert (batch[name][row].numpy() == wanted[name]).all()
        for name in ("text", "count"):
            assert bool(batch[f"{name}.mask"][row]) == (wanted[name] is not None)
            assert (batch[name][row].numpy() == (0 if wanted[name] is None else wanted[name])).all()
        n = LENGTHS[i % 8] or 0
        assert batch["tokens.mask"][row].tolist() == [True] * n + [False] * (3 - n)
        assert (batch["tokens"][row, :n].numpy() == (wanted["tokens"] if n else 0)).all()
        assert not batch["tokens"][row, n:].any()
    assert batch["tokens"].dtype == torch.float16


def test_rows_without_a_field_can_be_left_out(tmp_path: Path) -> None:
    train = open_cache(make_cache(tmp_path, PIXEL)).training(("tokens",))
    keys = train.keys(range(len(train)))
    spoken = train.having(("tokens",))
    assert spoken.keys(range(len(spoken))) == [key for key in keys if LENGTHS[int(key[:-4]) % 8]]
    both = train.having(("tokens", "text"))
    assert both.keys(range(len(both))) == [f"{i}.png" for i in TRAINED if LENGTHS[i % 8] and i % 3 != 2]
    assert both.rows(range(len(both)))["tokens.mask"].any(1).all()
    assert len(train) == len(keys)


def test_a_field_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    cache = open_cache(make_cache(tmp_path, PIXEL))
    for ask in (lambda: cache.training(("txet",)), lambda: cache.training().having(("txet",))):
        with pytest.raises(ConfigError, match=r"no field txet(?s:.)*representation, target, text, tokens, low_res"):
            ask()
    with pytest.raises(ConfigError, match="no field class"):  # nothing is labeled
        cache.training(("class",))


def test_entries_of_a_field_are_its_values_and_its_mask(tmp_path: Path) -> None:
    batch = open_cache(make_cache(tmp_path, PIXEL)).training().rows([0])
    assert set(of_fields(batch, ["tokens", "low_res", "class"])) == {"tokens", "tokens.mask", "low_res"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": TEXT.model_copy(update={"shape": (4,)})}, r"text: fixed_size_list<item: float>\[3\]"),
        ({"text": TEXT.model_copy(update={"nullable": False})}, r"expected:.*\[3\] not null"),
        ({"tokens": TOKENS.model_copy(update={"ragged": False})}, "tokens: list<"),
        ({"low_res": LOW_RES.model_copy(update={"dtype": "float16"})}, "uint8(?s:.)*halffloat"),
        ({"low_res": LOW_RES.model_copy(update={"name": "sketch"})}, "sketch: no such column(?s:.)*expected"),
        ({"low_res": None}, "expected: .*low_res: no such column"),
    ],
)
def test_a_shard_that_is_not_what_the_fields_say_is_refused(
    tmp_path: Path, change: dict[str, FieldSpec | None], message: str
) -> None:
    artifact = make_cache(tmp_path, PIXEL)
    info = CacheInfo.model_validate(artifact.read_json("cache.json"))
    fields = [change.get(field.name, field) for field in info.fields]
    changed = info.model_copy(update={"fields": tuple(field for field in fields if field is not None)})
    artifact.write_json("cache.json", changed.model_dump(mode="json"))
    with pytest.raises(ArtifactError, match=rf"c00000\.arrow does not match the fields(?s:.)*{message}"):
        open_cache(artifact)


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        (LOW_RES, [np.zeros((2, 3, 3), np.uint8)], "low_res needs a value for every row"),
        (LOW_RES, [np.zeros((2, 3, 3), np.uint8), None], "low_res needs a value for every row"),
        (LOW_RES, np.zeros((2, 2, 3, 3), np.float32), "not as the field low_res says"),
        (TEXT, [None, np.zeros(4, np.float32)], "not as the field text says"),
        (TOKENS, [np.zeros((2, 3), np.float16), None], "not as the field tokens says"),
    ],
)
def test_values_that_are_not_what_the_field_says_are_refused(
    tmp_path: Path, field: FieldSpec, values: Any, message: str
) -> None:
    rows = [{"key": "a", "sha256": "", "split": "train", "view": 0}] * 2
    with ShardWriter(tmp_path / "shard.arrow", (field,)) as shard, pytest.raises(ShapeError, match=message):
        shard.add(rows, {field.name: values})
