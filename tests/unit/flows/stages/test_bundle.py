"""The bundle stage: same inputs, same bytes; parts untouched; the code that serving needs and no more."""

import ast
import json
from pathlib import Path

import pytest
import yaml

from components.errors import ConfigError
from components.generators.sampling import DiffusionSampling
from flows.stages.bundle.params import BundleParams
from flows.stages.bundle.run import run
from tests.support.bundles import METRICS, bundle_params, make_bundle, make_parents
from tests.support.folders import FolderArtifact, contents
from tests.support.toys import worker

PART_FILES = {
    "encoder/config.json", "encoder/weights.safetensors", "codec/config.json", "rdm/config.json",
    "rdm/weights.safetensors", "pixels/config.json", "pixels/weights.safetensors",
}  # fmt: skip


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
    parents = ["codec", "collect", "encode", "encoder", "evaluate", "pixels", "rdm"]
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


def test_guidance_that_the_generator_cannot_do_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    inputs, out = make_parents(tmp_path / "parents", "none"), FolderArtifact(tmp_path / "bundle")
    sampling = bundle_params().sampling
    pixels = DiffusionSampling.tiny().model_copy(update={"guidance": 2.0})
    params = bundle_params(sampling=sampling.model_copy(update={"pixels": pixels}))
    with pytest.raises(ConfigError, match=r"guidance needs a condition[\s\S]*2\.0"):
        run(params, inputs, out, worker(tmp_path))
    assert out.names() == []


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
