"""Params are changed in place, and drift is about 1 for more of the same."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.collection.lock import Entry, read_lock, write_lock
from components.errors import ConfigError
from components.metrics.drift import frechet_ratio
from flows.pipeline.params import check_params
from flows.retrain.resolve import fits_anew, set_values

ROOT = Path(__file__).parents[4]
TEXT = """\
# a remark
collect:
  base: all   # everything
  labels: none
rdm: {init: null, seed: 0}
"""


def test_only_the_named_values_change_and_remarks_stay() -> None:
    found = set_values(TEXT, {"collect.base": ["c00000", "c00001"], "rdm.init": "sha256:ab"})
    assert found == TEXT.replace("base: all", "base: [c00000, c00001]").replace("init: null", "init: sha256:ab")
    assert set_values(found, {"collect.base": "all", "rdm.init": None}) == TEXT


def test_an_absent_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"rdm\.start"):
        set_values(TEXT, {"rdm.start": 1})


@pytest.mark.parametrize("name", ["digits", "clipart", "smoke"])
def test_presets_take_what_retraining_sets(name: str) -> None:
    text = (ROOT / f"presets/{name}.yaml").read_text()
    values = {"collect.base": ["c00000"], "rdm.init": f"sha256:{'a' * 64}", "pixels.init": f"sha256:{'b' * 64}"}
    params = check_params(yaml.safe_load(set_values(text, values)), name)
    assert params.collect.base == ["c00000"]
    assert (params.rdm.init, params.pixels.init) == (values["rdm.init"], values["pixels.init"])


@given(st.lists(st.integers(0, 99999), min_size=1, max_size=30, unique=True))
def test_any_list_of_chunks_is_read_back(numbers: list[int]) -> None:
    chunks = [f"c{number:05d}" for number in numbers]
    found = yaml.safe_load(set_values(TEXT, {"collect.base": chunks}))
    assert found == yaml.safe_load(TEXT) | {"collect": {"base": chunks, "labels": "none"}}


@pytest.mark.parametrize(
    ("refit", "images", "moves"), [("never", 1, False), ("every_n", 30, True), ("every_n", 31, False)]
)
def test_when_encoder_and_codec_are_fitted_anew(tmp_path: Path, refit: str, images: int, moves: bool) -> None:
    entries = [Entry(f"{i}.png", 5, f"{i:016x}") for i in range(40)]
    path = tmp_path / "collection.lock"
    write_lock(path, [], [("c00000", entries[:10]), ("c00001", entries[10:25]), ("c00002", entries[25:])])
    params = check_params(yaml.safe_load((ROOT / "presets/smoke.yaml").read_text()), "smoke")
    retrain = params.retrain.model_copy(update={"refit": refit, "refit_images": images})
    found, why = fits_anew(retrain, read_lock(path), ["c00000"], None, None)  # type: ignore[arg-type]
    assert found == moves
    assert ("30 images" in why) == (refit == "every_n")


def test_drift_is_about_one_for_more_of_the_same_and_large_for_others() -> None:
    rng = np.random.default_rng(0)
    old, more = rng.normal(size=(400, 6)), rng.normal(size=(200, 6))
    assert frechet_ratio(more, old) < 2.5
    assert frechet_ratio(more + 1.0, old) > 10
    assert frechet_ratio(more[:5], old) == float("inf"), "too few to know"
