import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import ConfigError
from flows.executors.image import IMAGES, check_image, check_own_code, stage_digests
from flows.identity.fingerprint import Identity, identify
from flows.pipeline.table import KINDS
from flows.runs.records import Spec

IMAGE = "registry.example/rcg@sha256:" + "a" * 64


def spec(identity: Identity) -> Spec:
    return Spec(
        schema_version=1,
        fingerprint=identity.fingerprint,
        identity=identity,
        inputs={},
        source="demo",
        collection_lock=None,
        module=KINDS["rdm"].module,
    )


@pytest.fixture(scope="module")
def rdm() -> Spec:
    return spec(identify("rdm", KINDS["rdm"].module, {}, {}))


def remember(root: Path, text: str) -> None:
    (root / IMAGES).parent.mkdir()
    (root / IMAGES).write_text(text)


def test_digests_are_those_of_fingerprints(rdm: Spec) -> None:
    assert stage_digests()["rdm"] == rdm.identity.code
    printed = subprocess.run(
        [sys.executable, "-m", "flows.executors.image"], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(printed) == stage_digests()


def test_other_code_is_refused_on_both_sides(rdm: Spec, tmp_path: Path) -> None:
    other = spec(rdm.identity.model_copy(update={"modules": {"flows.stages.rdm.run": "0" * 64}}))
    remember(tmp_path, json.dumps({IMAGE: stage_digests()}))
    check_image(rdm, IMAGE, tmp_path)
    check_own_code(rdm)
    with pytest.raises(ConfigError, match="other code for rdm"):
        check_image(other, IMAGE, tmp_path)
    with pytest.raises(ConfigError, match="make image"):
        check_own_code(other)


def test_images_that_nothing_is_known_of_pass(rdm: Spec, tmp_path: Path) -> None:
    check_image(rdm, IMAGE, tmp_path)
    remember(tmp_path, "{}")
    check_image(rdm, IMAGE, tmp_path)


def test_a_damaged_list_of_images_is_named(rdm: Spec, tmp_path: Path) -> None:
    remember(tmp_path, "[")
    with pytest.raises(ConfigError, match=r"images\.json"):
        check_image(rdm, IMAGE, tmp_path)
