"""Golden digests: the bits of whole small pipelines, so that a change which only moves code can prove it.

    OMP_NUM_THREADS=1 python -m tests.support.golden            # compare this checkout with tests/data/golden.json
    OMP_NUM_THREADS=1 python -m tests.support.golden --record   # replace the golden file, on purpose

Every case runs the stages of a preset with few steps, in one process of one thread, through the commands that a person
types. Only the commands, the presets and the layout of `artifacts/` and of the store are known here, no inner module.
The digests count on the machine and the library versions that recorded them; elsewhere the numbers do, with tolerance.
"""

import argparse
import copy
import json
import os
import platform
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/data/golden.json"
RMS = "rms"
NOT_STAGES = ("gate", "retrain")
BUNDLE_COUNTS = ("collect/", "encoder/", "codec/", "rdm/", "pixels/", "rcg.json", "metrics.json")
"""Files of a bundle that count: weights and configs. The rest is source code, and lineage with digests of it."""
PAGE = "report.html"
"""It does not count: its numbers and pictures stand in files beside it, and its words and looks may change."""
LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "pillow", "pyarrow", "safetensors")
KERNEL_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")
METRIC_TOLERANCE, METRIC_SLACK, WEIGHT_TOLERANCE = 0.05, 0.02, 0.01
"""Where the environment differs: relative, and for metrics (shares move by whole images) also absolute.

AVX2 kernels in place of AVX-512 move metrics by up to 0.02 and weights and samples by up to 0.0005, relatively.
"""

Digests = dict[str, dict[str, dict[str, str]]]
"""Case -> stage -> file -> sha256."""
Numbers = dict[str, dict[str, dict[str, float]]]
"""Case -> stage -> name -> value."""


@dataclass(frozen=True)
class Case:
    """A preset on a collection, with some of its params replaced."""

    preset: str
    source: str
    """`demo`, or a folder that `_make_sources` makes."""
    changes: Mapping[str, Any]
    """Dotted path into the params -> value."""

    def params(self) -> dict[str, Any]:
        params: dict[str, Any] = yaml.safe_load((ROOT / f"presets/{self.preset}.yaml").read_text())
        params = json.loads(json.dumps(params))  # YAML's anchors make sections share their parts
        for path, value in self.changes.items():
            *parents, last = path.split(".")
            section = params
            for name in parents:
                section = section[name]
            assert last in section, f"{path} is no param of preset {self.preset}"
            section[last] = copy.deepcopy(value)
        return params


@dataclass
class Measured:
    """What the cases came to."""

    environment: str
    digests: Digests = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)

    def only(self, case: str) -> "Measured":
        """This case alone; empty where it is not there."""
        return Measured(
            self.environment,
            {name: stages for name, stages in self.digests.items() if name == case},
            {name: stages for name, stages in self.numbers.items() if name == case},
        )


def _few_steps(steps: int, *sections: str) -> dict[str, Any]:
    return {
        f"{section}.train.{name}": value
        for section in sections
        for name, value in (("steps", steps), ("warmup_steps", 3), ("log_every", 4))
    }


def _sampling(**options: Any) -> dict[str, Any]:
    """Every place that says how pixels are sampled."""
    return {
        place: {"kind": "diffusion", **options}
        for place in (
            "pixels.preview.sampling",
            "sample.pixels",
        )
    }


_UNET = {
    "width": 8,
    "multipliers": [1, 2],
    "n_blocks": 1,
    "groups": 4,
    "heads": {"width": 4},
    "attention_sides": [4],
    "min_snr": None,
}
CLIPART_STEPS = {
    **_few_steps(6, "encoder"),
    **_few_steps(12, "codec", "pixels", "evaluate"),
    **_few_steps(20, "rdm"),
    "codec.objective.free_steps": 4,
    "pixels.preview.every": 8,
    "sample.n": 32,
}
CASES: dict[str, Case] = {
    "smoke": Case("smoke", "blobs", {"collect.labels": "folder"}),
    # An RDM conditioned on classes; a UNet conditioned on classes and representations, with a learned variance and
    # ancestral sampling with guidance.
    "adm": Case(
        "smoke",
        "blobs",
        {
            "collect.labels": "folder",
            "rdm.model.conditions": [{"kind": "class", "port": "vector", "drop_prob": 0.0, "missing": "skip"}],
            "pixels.model": {
                "kind": "adm",
                **_UNET,
                "conditions": [
                    {"kind": "class", "port": "vector", "drop_prob": 0.1, "missing": "null"},
                    {"kind": "representation", "port": "vector", "drop_prob": 0.0, "project": True},
                ],
                "schedule": {"kind": "linear", "n_times": 1000},
                "prediction": "eps",
                "variance": "learned",
                "qkv_order": "per_head",
                "latents": "as_stored",
            },
            **_sampling(sampler="ancestral", steps=5, spacing="linspace", eta=0.0, guidance=0.5),
        },
    ),
    "digits": Case(
        "digits",
        "demo",
        {
            **_few_steps(4, "encoder"),
            **_few_steps(16, "rdm", "pixels", "evaluate"),
            "encoder.probe.max_images": 500,
            "rdm.check.n": 200,
            "rdm.check.batch_size": 100,
            "pixels.preview.every": 8,
            "pixels.preview.n": 16,
            "sample.n": 100,
        },
    ),
    "clipart": Case("clipart-test", "clipart", CLIPART_STEPS),
    # Standardized latents of the codec, clusters, min-SNR, stochastic ddim with guidance.
    "ldm": Case(
        "clipart-test",
        "clipart",
        {
            **{path: value for path, value in CLIPART_STEPS.items() if not path.startswith("rdm.")},
            "codec.model.space": "latents",
            "rdm": None,
            "sample.representations": None,
            "sample.rdm": None,
            "pixels.model": {
                "kind": "ldm",
                **_UNET,
                "conditions": [{"kind": "cluster", "port": "vector", "drop_prob": 0.1, "n_clusters": 4}],
                "context_dim": 16,
                "schedule": {"kind": "sqrt_linear", "n_times": 1000},
                "prediction": "v",
                "variance": "fixed",
                "latents": "standardized",
                "min_snr": 5.0,
            },
            **_sampling(sampler="ddim", steps=5, spacing="trailing", eta=1.0, guidance=0.5),
        },
    ),
}


def environment() -> str:
    """What bits may depend on besides the code: processor, kernels and library versions."""
    info = Path("/proc/cpuinfo")
    lines = dict(
        (part.strip() for part in line.split(":", 1))
        for line in reversed(info.read_text().splitlines() if info.exists() else [])
        if ":" in line
    )
    processor = " ".join(lines.get(name, "?") for name in ("model name", "cpu family", "model", "stepping"))
    kernels = [torch.backends.cpu.get_cpu_capability()]
    kernels += [f"{name}={os.environ[name]}" for name in KERNEL_VARIABLES if name in os.environ]
    versions = [f"{name} {version(name)}" for name in LIBRARIES]
    return ", ".join([processor, platform.machine(), *kernels, f"python {platform.python_version()}", *versions])


def measure(folder: Path) -> Measured:
    """Run every case below the folder. Changes this process's folder and environment."""
    assert os.environ.get("OMP_NUM_THREADS") == "1", "set OMP_NUM_THREADS=1: sums depend on the number of threads"
    torch.set_num_threads(1)
    for name in [name for name in os.environ if name.startswith("RCG_")]:
        del os.environ[name]
    os.environ |= {"RCG_MLFLOW_URI": "off", "CUDA_VISIBLE_DEVICES": ""}
    _make_sources(folder)
    measured = Measured(environment())
    for name, case in CASES.items():
        stages = _run(case, folder)
        measured.digests[name] = {stage: dict(_digests(stage, run)) for stage, run in stages.items()}
        measured.numbers[name] = {stage: dict(_numbers(run)) for stage, run in stages.items()}
    return measured


def _make_sources(folder: Path) -> None:
    """clipart: the tests' own pictures. blobs: 90 small gray pictures in three classes, of NumPy's generator alone."""
    with zipfile.ZipFile(ROOT / "tests/data/clipart.zip") as archive:
        archive.extractall(folder / "clipart")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:8, :8]
    for i in range(90):
        cx, cy = rng.uniform(1, 7, 2)
        blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 + 2 * (i % 3))) + rng.normal(0, 0.15, (8, 8))
        path = folder / f"blobs/class{i % 3}/{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((blob.clip(0, 1) * 255).astype(np.uint8)).save(path)


def _run(case: Case, folder: Path) -> dict[str, Path]:
    """Every stage of the case; stage -> folder of its artifact. Cases of one source share what is equal of them."""
    from flows.commands.table import app

    root = folder / f"project-{case.source}"
    root.mkdir(exist_ok=True)
    os.chdir(root)
    params = case.params()
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    app(["snapshot", case.source if case.source == "demo" else str(folder / case.source)], standalone_mode=False)
    stages = [name for name, section in params.items() if section is not None and name not in NOT_STAGES]
    for stage in stages:
        app(["run", stage], standalone_mode=False)
    return {stage: root / "artifacts" / stage for stage in stages}


def _digests(stage: str, artifact: Path) -> Iterator[tuple[str, str]]:
    files = json.loads((artifact / "manifest.json").read_text())["files"]
    for name in sorted(files):
        if name != PAGE and (stage != "bundle" or name.startswith(BUNDLE_COUNTS)):
            yield name, files[name]["sha256"]


def _numbers(artifact: Path) -> Iterator[tuple[str, float]]:
    """The stage's metrics, and the root mean square of the tensors in each of its files."""
    yield from json.loads((artifact / "metrics.json").read_text()).items()
    store = artifact.parents[1] / ".rcg/store"
    run = json.loads((artifact / "run.json").read_text())["prefix"]
    for name, key in sorted(json.loads((store / run / "run.json").read_text())["keys"].items()):
        if name.endswith(".safetensors"):
            values = np.concatenate([t.ravel().astype(np.float64) for t in load_file(store / key).values()])
            yield f"{RMS} of {name}", float(np.sqrt(np.mean(values**2)))


def differing_digests(golden: Digests, measured: Digests) -> list[str]:
    """`case/stage/file` of every file whose bits are other ones, or that is new or gone."""
    before, after = _flat(golden), _flat(measured)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def differing_numbers(golden: Numbers, measured: Numbers) -> list[str]:
    """One line for every number that is new, gone, or further from the golden one than the tolerance."""
    before, after = _flat(golden), _flat(measured)
    lines = [f"{name}: only on one side" for name in sorted(before.keys() ^ after.keys())]
    for name in sorted(before.keys() & after.keys()):
        weights = name.split("/", 2)[2].startswith(RMS)
        relative, absolute = (WEIGHT_TOLERANCE, 0.0) if weights else (METRIC_TOLERANCE, METRIC_SLACK)
        if abs(before[name] - after[name]) > absolute + relative * abs(before[name]):
            lines.append(f"{name}: {after[name]:.6g}, golden {before[name]:.6g}")
    return lines


def _flat(tree: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    return {
        f"{c}/{s}/{n}": value for c, stages in tree.items() for s, names in stages.items() for n, value in names.items()
    }


def read(path: Path = GOLDEN) -> Measured:
    return Measured(**json.loads(path.read_text()))


def write(measured: Measured, path: Path) -> None:
    path.write_text(json.dumps(vars(measured), indent=1, sort_keys=True) + "\n")


def compare(golden: Measured, measured: Measured) -> tuple[list[str], str]:
    """What differs, and what was compared: digests in the environment that recorded them, numbers elsewhere."""
    if golden.environment == measured.environment:
        return differing_digests(golden.digests, measured.digests), "digests were compared"
    why = f"recorded on [{golden.environment}], this is [{measured.environment}]"
    return differing_numbers(golden.numbers, measured.numbers), f"digests were NOT compared, numbers were: {why}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="replace tests/data/golden.json")
    parser.add_argument("--out", type=Path, help="only measure, and write this file")
    arguments = parser.parse_args()
    out = None if arguments.out is None else arguments.out.absolute()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder))
        os.chdir(ROOT)
    if out is not None or arguments.record:
        write(measured, out or GOLDEN)
        return 0
    lines, how = compare(read(), measured)
    sys.stdout.write("\n".join([how, *lines, f"{len(lines)} differ"]) + "\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
