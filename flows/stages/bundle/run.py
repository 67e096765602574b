"""Stage bundle: the servable model as a folder of plain files, readable by Bundle.load and by MLflow's pyfunc.

Every byte is a function of the parents, the params and the sources: no time, host or random id gets in. So the content
digest of this artifact is the bundle's identity.
"""

import json
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components.base import Metrics
from components.bundle import integrity
from components.bundle.bundle import CARD, PART_FILES, PARTS, SCHEMA, BundleCard
from components.bundle.serving import REQUEST_COLUMNS, RESPONSE_COLUMNS, request_params
from components.bundle.system import SystemSampling
from components.cache.samples import INDEX
from components.generators.upsampling import HOW
from components.guides.config import GUIDED
from components.training.worker import Worker
from flows.identity.artifact import InputArtifact, Inputs, Output
from flows.identity.closure import module_digests
from flows.stages.bundle.params import BundleParams

_ROOT = Path(__file__).parents[3]
_ENTRY = "components.bundle.serving"
_UNCOUNTED = ("components.errors", "components.printable")
_REQUIRED = ("torch", "numpy", "pydantic", "jaxtyping", "safetensors", "pillow", "mlflow", "pandas")

MODEL_PY = (
    Path(integrity.__file__).read_text()
    + '''

# The pyfunc model of this bundle: MLflow runs this file. Without MLflow: Bundle.load(folder).

import os
import sys
import warnings
from contextlib import contextmanager

import mlflow
import pandas as pd
import torch  # like the others before the bundle's folder is looked in

HERE = Path(__file__).resolve().parent


@contextmanager
def no_bytecode():
    """Modules that are imported meanwhile neither leave compiled files nor read any: the checked source counts."""
    before = sys.dont_write_bytecode, sys.pycache_prefix
    sys.dont_write_bytecode, sys.pycache_prefix = True, os.devnull
    try:
        yield
    finally:
        sys.dont_write_bytecode, sys.pycache_prefix = before


def load_predictor():
    later = (".safetensors",)  # by Bundle.load
    damage = find_damage(HERE, read_files(HERE, later), later)
    if damage:
        raise RuntimeError(f"the bundle {HERE} is damaged, copy it again: {', '.join(damage)}")
    sys.path.insert(0, str(HERE))
    try:
        from components.bundle.serving import Predictor
    finally:
        sys.path.remove(str(HERE))
    root = Path(sys.modules["components"].__file__).parents[1]
    for own in sorted(HERE.glob("components/**/*.py")):
        used = root / own.relative_to(HERE)
        if not used.is_file() or used.read_bytes() != own.read_bytes():
            warnings.warn(f"this process had imported other code than the bundle's: {used} differs", stacklevel=2)
            break
    return Predictor.load(HERE)


class Model(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        with no_bytecode():
            self.predictor = load_predictor()

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        frame = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        with no_bytecode():
            return pd.DataFrame(self.predictor.predict(frame.to_dict("records"), params or {}))


mlflow.models.set_model(Model())
'''
)


def run(params: BundleParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Writes the parts, rcg.json, lineage.json, components/, and the files of MLflow's model format."""
    if worker.rank != 0:
        return {}
    sampling = _evaluated_sampling(inputs)
    parts = [part for part in PARTS if part in inputs and (part != "encoder" or params.with_encoder)]
    n_bytes = sum(_copy_part(part, inputs[part], out) for part in parts)
    card = BundleCard(
        schema_version=SCHEMA,
        parts=tuple(parts),
        decode=inputs["collect"].read_json("collection.json")["decode"],
        sampling=sampling,
    )
    out.write_json(CARD, card.model_dump(mode="json"))
    out.write_json("lineage.json", _lineage(params, inputs))
    for module_path in _sources():
        out.write_bytes(module_path.relative_to(_ROOT).as_posix(), module_path.read_bytes())
    guided = inputs["guide"].read_json("config.json")["model"]["kind"] if "guide" in parts else None
    _write_pyfunc(sampling, guided=guided and GUIDED[guided], more=_more(parts, inputs), out=out)
    return {"weights_mib": n_bytes / 2**20, "parts": float(len(parts))}


def _evaluated_sampling(inputs: Inputs) -> SystemSampling:
    """How the images that were evaluated had been sampled: the defaults of the bundle."""
    evaluated = inputs["sample"].read_json(INDEX)["sampling"]
    upsampler = inputs["upsampler"].read_json(HOW) if "upsampler" in inputs else None
    fields = [name for name in SystemSampling.model_fields if name in evaluated]
    return SystemSampling.model_validate({name: evaluated[name] for name in fields} | {"upsampler": upsampler})


def _copy_part(part: str, artifact: InputArtifact, out: Output) -> int:
    """Byte for byte; returns the bytes written."""
    names = [name for name in PART_FILES if name in artifact.manifest.files]
    for name in names:
        out.write_bytes(f"{part}/{name}", artifact.read_bytes(name))
    return sum(artifact.manifest.files[name].size for name in names)


def _sources() -> list[Path]:
    """Files of components/ that serving imports, directly or not."""
    modules = {*module_digests(_ENTRY), *_UNCOUNTED}
    paths = (_ROOT.joinpath(*module.split(".")) for module in modules)
    return sorted(path / "__init__.py" if path.is_dir() else path.with_name(f"{path.name}.py") for path in paths)


def _lineage(params: BundleParams, inputs: Inputs) -> dict[str, Any]:
    """What the bundle was made of, to be read without a store or a network."""
    parents = {}
    stages = (
        *("collect", "encoder", "codec", "text", "encode", "rdm", "pixels"),
        *("guide", "upsampler", "sample", "evaluate"),
    )
    for stage in (stage for stage in stages if stage in inputs):
        artifact = inputs[stage]
        parents[stage] = {"content": artifact.digest}
        for key, name in (("metrics", "metrics.json"), ("config", "config.json")):
            if name in artifact.manifest.files:
                parents[stage][key] = artifact.read_json(name)
    collection = inputs["collect"].read_json("collection.json")
    return {
        "schema_version": SCHEMA,
        "collection": {"chunks": collection["chunks"], "classes": collection["classes"]},
        "parents": parents,
        "params": params.model_dump(mode="json"),
    }


def _more(parts: Iterable[str], inputs: Inputs) -> tuple[str, ...]:
    """Libraries that only some bundles need."""
    timm = "encoder" in parts and inputs["encoder"].read_json("config.json")["kind"] in ("timm", "clip")
    text = inputs["text"].read_json("config.json") if "text" in parts else {}
    pretrained = (text.get("encoder") or {}).get("kind") in ("pretrained", "clip")
    tokenizers = pretrained or text.get("bpe") is not None
    wanted = {"timm": timm, "tokenizers": tokenizers, "transformers": pretrained}
    return tuple(name for name, needed in wanted.items() if needed)


def _write_pyfunc(sampling: SystemSampling, *, guided: str | None, more: Iterable[str], out: Output) -> None:
    """The files of MLflow's model format (models-from-code). JSON is YAML, too."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    names = sorted((*_REQUIRED, *more))
    example = {"columns": list(REQUEST_COLUMNS), "data": [[None] * len(REQUEST_COLUMNS)]}
    n = {"n": 4}
    out.write_bytes("model.py", MODEL_PY.encode())
    out.write_bytes("requirements.txt", "".join(f"{name}=={_public(version(name))}\n" for name in names).encode())
    out.write_json(
        "python_env.yaml", {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    )
    out.write_json("input_example.json", {"inputs": example, "params": n})
    out.write_json("serving_input_example.json", {"dataframe_split": example, "params": n})
    out.write_json(
        "MLmodel",
        {
            "flavors": {
                "python_function": {
                    "code": None,
                    "env": {"virtualenv": "python_env.yaml"},
                    "loader_module": "mlflow.pyfunc.loaders.code_model",
                    "model_code_path": "model.py",
                    "python_version": python,
                    "streamable": False,
                }
            },
            "mlflow_version": version("mlflow"),
            "saved_input_example_info": {
                "artifact_path": "input_example.json",
                "pandas_orient": "split",
                "params": "true",
                "serving_input_path": "serving_input_example.json",
                "type": "dataframe",
            },
            "signature": {
                "inputs": json.dumps([{"required": False, **column} for column in REQUEST_COLUMNS.values()]),
                "outputs": json.dumps([{"required": True, **column} for column in RESPONSE_COLUMNS.values()]),
                "params": json.dumps(request_params(sampling, guided)),
            },
            "utc_time_created": "1970-01-01 00:00:00",
        },
    )


def _public(text: str) -> str:
    """A version without its local part (+cpu, +cu130): a package index has only the public one."""
    return text.partition("+")[0]
