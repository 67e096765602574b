"""The bundle stage: same inputs, same bytes; parts untouched; the code that serving needs and no more."""

import ast
import json
from pathlib import Path

import pytest
import yaml

from components.bundle.bundle import Bundle
from components.bundle.request import Request
from flows.stages.bundle.params import BundleParams
from flows.stages.bundle.run import run
from tests.support.bundles import METRICS, SAMPLING, bundle_params, make_bundle, make_parents
from tests.support.folders import FolderArtifact, contents
from tests.support.toys import worker

PART_FILES = {
    "encoder/config.json",
    "encoder/weights.safetensors",
    "codec/config.json",
    "rdm/config.json",
    "rdm/weights.safetensors",
    "pixels/config.json",
    "pixels/weights.safetensors",
}


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    a, b = (make_bundle(tmp_path / name) for name in ("a", "b"))
    assert contents(a) == contents(b)
    other = make_bundle(tmp_path / "c", with_encoder=False)
    assert a.digest == b.digest != other.digest


def test_parts_are_copied_byte_for_byte(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    assert {n for n in bundle.names() if n.split("/")[0] in ("encoder", "codec", "rdm", "pixels")} == PART_FILES
    for name in PART_FILES:
        assert bundle.read_bytes(name) == FolderArtifact(tmp_path / "parents").read_bytes(name)
    slim = make_bundle(tmp_path / "slim", with_encoder=False)
    assert not [n for n in slim.names() if n.startswith("encoder/")]


def test_code_is_closed_under_imports_and_free_of_training(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    sources = {n for n in bundle.names() if n.startswith("components/")}
    assert {
        "components/bundle/system.py",
        "components/bundle/serving.py",
        "components/errors.py",
        "components/__init__.py",
    } <= sources
    assert not [n for n in sources if n.startswith(("components/training", "components/store", "components/metrics"))]
    elsewhere = "components.store"  # asked for a weights file in a bucket only; a bundle brings its weights along
    for name in sources:
        for node in ast.walk(ast.parse(bundle.read_bytes(name))):
            if not isinstance(node, ast.ImportFrom) or node.module == elsewhere:
                continue
            if node.module and node.module.startswith("components"):
                stem = node.module.replace(".", "/")
                assert {f"{stem}.py", f"{stem}/__init__.py"} & sources, f"{name} imports {node.module}"


def test_lineage_names_parents_and_metrics(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    lineage = bundle.read_json("lineage.json")
    parents = ["codec", "collect", "encode", "encoder", "evaluate", "pixels", "rdm", "sample"]
    assert sorted(lineage["parents"]) == parents
    for stage in parents:
        assert lineage["parents"][stage]["content"] == FolderArtifact(tmp_path / "parents" / stage).digest
    assert lineage["parents"]["evaluate"]["metrics"] == METRICS
    assert lineage["parents"]["pixels"]["config"]["model"]["kind"] == "dit"
    assert lineage["params"] == bundle_params().model_dump(mode="json")


def test_mlflow_files_hold_no_time_and_pin_what_is_installed(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    model = yaml.safe_load(bundle.read_bytes("MLmodel"))
    flavor = model["flavors"]["python_function"]
    assert flavor["model_code_path"] == "model.py"
    assert model["utc_time_created"].startswith("1970")
    assert "model_uuid" not in model
    assert [p["name"] for p in json.loads(model["signature"]["params"])] == ["n", "seed", "guidance", "steps"]
    lines = bundle.read_bytes("requirements.txt").decode().split()
    assert all("==" in line and "+" not in line for line in lines)
    names = {line.split("==")[0] for line in lines}
    assert names == {"torch", "numpy", "pydantic", "jaxtyping", "safetensors", "pillow", "mlflow", "pandas"}
    ast.parse(bundle.read_bytes("model.py"))


def test_the_bundle_samples_by_default_as_its_images_were_evaluated(tmp_path: Path) -> None:
    evaluated = SAMPLING.model_copy(update={"seed": 5, "batch_size": 2})
    card = make_bundle(tmp_path, sampling=evaluated).read_json("rcg.json")
    assert card["sampling"] == evaluated.model_dump(mode="json")


def test_a_system_without_rdm_has_no_such_part(tmp_path: Path) -> None:
    inputs, out = make_parents(tmp_path / "parents", "none"), FolderArtifact(tmp_path / "bundle")
    run(bundle_params(), inputs, out, worker(tmp_path))
    assert "rdm" not in out.read_json("rcg.json")["parts"]
    assert "rdm" not in out.read_json("lineage.json")["parents"]
    out.commit()
    assert Bundle.load(out.root).sample(Request(n=2)).shape[0] == 2


def test_params_are_all_required() -> None:
    full = bundle_params().model_dump(mode="json")
    assert BundleParams.model_validate(full) == bundle_params()
    for key in full:
        with pytest.raises(ValueError, match=key):
            BundleParams.model_validate({k: v for k, v in full.items() if k != key})


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    inputs, out = make_parents(tmp_path / "parents"), FolderArtifact(tmp_path / "bundle")
    assert run(bundle_params(), inputs, out, worker(tmp_path, rank=1, world_size=2)) == {}
    assert out.names() == []
