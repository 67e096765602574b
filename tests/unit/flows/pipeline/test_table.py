"""pipeline(): which stages there are, and what they need, for the systems of the papers."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.errors import ConfigError
from flows.pipeline.table import Need, Stage, check_name, pipeline
from tests.support.generators import BY_CLASS

PRESETS = Path(__file__).parents[4] / "presets"


def sections(**changes: Any) -> dict[str, Any]:
    """The smoke preset, with the values of some sections changed; null takes the section away."""
    found: dict[str, Any] = yaml.safe_load((PRESETS / "smoke.yaml").read_text())
    for name, change in changes.items():
        found[name] = None if change is None else found[name] | change
    return found


def needs(stage: Stage) -> list[str]:
    return [need.stage for need in stage.needs]


def test_rcg_has_the_nine_stages() -> None:
    stages = pipeline(sections())
    assert list(stages) == [
        "collect",
        "encoder",
        "codec",
        "encode",
        "rdm",
        "pixels",
        "sample",
        "evaluate",
        "bundle",
    ]
    assert needs(stages["sample"]) == ["rdm", "pixels", "codec"]
    assert needs(stages["bundle"]) == ["collect", "encoder", "codec", "encode", "rdm", "pixels", "sample", "evaluate"]
    assert [need.file for need in stages["encoder"].needs] == ["base.json"]


def test_without_an_rdm_nothing_needs_one() -> None:
    stages = pipeline(sections(rdm=None, sample={"representations": None, "rdm": None}))
    assert "rdm" not in stages
    assert list(stages) == [name for name in pipeline(sections()) if name != "rdm"]
    assert needs(stages["sample"]) == ["pixels", "codec"]
    assert not any("rdm" in needs(stage) for stage in stages.values())
    present = {name: section for name, section in sections().items() if name != "rdm"}
    left_out = pipeline(present | {"sample": sections()["sample"] | {"representations": None, "rdm": None}})
    assert left_out == stages, "a section of null and one that is not there are the same"


def test_a_class_conditional_rdm_changes_no_stage() -> None:
    model = sections()["rdm"]["model"] | {"conditions": [one.model_dump() for one in BY_CLASS]}
    assert pipeline(sections(rdm={"model": model})) == pipeline(sections())


def test_oracle_representations_are_read_from_the_cache() -> None:
    stages = pipeline(sections(sample={"representations": "oracle"}))
    assert needs(stages["sample"]) == ["pixels", "codec", "encode"]
    assert "rdm" in needs(stages["bundle"])


def test_a_guide_is_a_stage_where_its_section_is_and_is_sampled_with_where_options_follow_it() -> None:
    guided: dict[str, Any] = yaml.safe_load((PRESETS / "digits-guided.yaml").read_text())
    stages = pipeline(guided)
    assert needs(stages["guide"]) == ["encode"]
    assert needs(stages["sample"]) == ["rdm", "pixels", "codec", "guide"]
    assert "guide" in needs(stages["bundle"])
    del guided["sample"]["rdm"]["guide"]
    assert needs(pipeline(guided)["sample"]) == ["rdm", "pixels", "codec"]
    assert "guide" not in pipeline(guided | {"guide": None})


def test_needs_of_a_pipeline_hold_no_conditions() -> None:
    assert all(need.when is None for stage in pipeline(sections()).values() for need in stage.needs)


def test_names_that_are_no_stage() -> None:
    stages = pipeline(sections(rdm=None, sample={"representations": None}))
    assert check_name("pixels", stages) == "pixels"
    assert check_name("rdm") == "rdm"
    with pytest.raises(ConfigError, match=r"did you mean rdm\?"):
        check_name("rmd")
    with pytest.raises(ConfigError, match=r"no stage rdm[\s\S]*null in params.yaml[\s\S]*rcg plan"):
        check_name("rdm", stages)


def test_text_is_a_stage_where_params_have_the_section() -> None:
    words = {"encoder": {"kind": "words", "dim": 8, "max_tokens": 4, "seed": 0}}
    stages = pipeline({**sections(), "text": {"numerics": 1, "states": False, "joint": None, **words}})
    assert stages["text"].needs == (Need("collect", "base.json"),)
    assert "text" in needs(stages["encode"])
    assert all("text" not in needs(stage) for stage in pipeline(sections()).values())
