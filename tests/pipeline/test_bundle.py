"""A bundle works where nothing of this project is: a clean environment with its own requirements and no repo."""

import importlib.util
import json
import os
import py_compile
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.bundle.bundle import Bundle
from components.bundle.integrity import bundle_digest
from components.bundle.request import Request
from components.images.pictures import to_uint8
from tests.support.bundles import make_bundle

ROOT = Path(__file__).parents[2]
ABSENT = ("ray", "dvc", "kubernetes", "flows", "timm", "pytest")

SCRIPT = """
import base64, importlib.util, io, json, sys
import numpy as np, pandas as pd
from PIL import Image

found = [name for name in {absent!r} + ("components",) if importlib.util.find_spec(name)]
assert not found, found
import mlflow
model = mlflow.pyfunc.load_model({bundle!r})
loaded = [name for name in {absent!r} if name in sys.modules]
assert not loaded, loaded
assert sys.modules["components"].__file__.startswith({bundle!r})

def pixels(frame):
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).tolist() for text in frame["image"]]

drawn = model.predict(pd.DataFrame([{{"class": None}}]), params={{"n": 5, "seed": 4}})
picture = io.BytesIO()
Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(picture, format="PNG")
like = model.predict([{{"image": base64.b64encode(picture.getvalue()).decode()}}], params={{"n": 2, "seed": 4}})
example = model.predict(model.input_example)
print(json.dumps({{"plain": pixels(drawn), "like": len(like), "example": len(example)}}))
"""

WITHOUT_MLFLOW = """
import json, sys
sys.dont_write_bytecode = True
sys.path.insert(0, {bundle!r})
from components.bundle.bundle import Bundle
from components.bundle.request import Request
images = Bundle.load({bundle!r}).sample(Request(n=5, seed=4))
assert "mlflow" not in sys.modules
print(json.dumps((images.permute(0, 2, 3, 1) * 255).round().int().tolist()))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_bundle(tmp_path_factory.mktemp("made"))
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "bundle"
    shutil.copytree(made.root, elsewhere)
    return elsewhere


@pytest.fixture(scope="module")
def clean_python(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An environment with the bundle's requirements only, hard links into uv's cache where that is warm."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        pytest.skip("SKIPPED: uv is not here, so the bundle was not tried in a clean environment")
    folder = tmp_path_factory.mktemp("clean")
    lock = (ROOT / "requirements.lock").read_text()
    pins = [re.sub(r"\s*\\$", "", line) for line in lock.splitlines() if re.match(r"\w", line)]
    (folder / "constraints.txt").write_text("\n".join(pins))
    environment = {**os.environ, "UV_LINK_MODE": os.environ.get("UV_LINK_MODE", "hardlink")}
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder / "venv")], check=True, env=environment)
    python = folder / "venv/bin/python"
    install = [uv, "pip", "install", "-q", "--python", str(python), "-r", str(bundle / "requirements.txt")]
    install += ["-c", str(folder / "constraints.txt")]
    if subprocess.run([*install, "--offline"], env=environment, capture_output=True, check=False).returncode != 0:
        subprocess.run(install, env=environment, check=True)
    yield python
    shutil.rmtree(folder)


def _run(python: Path, script: str, folder: Path) -> str:
    """Output of a script run far from the repo. -I: neither the current folder nor PYTHONPATH is looked at."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [str(python), "-I", "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_pyfunc_samples_in_a_clean_environment_without_the_repo(
    bundle: Path, clean_python: Path, tmp_path: Path
) -> None:
    digest = bundle_digest(bundle)
    told = json.loads(_run(clean_python, SCRIPT.format(bundle=str(bundle), absent=ABSENT), tmp_path))
    assert told["plain"] == to_uint8(Bundle.load(bundle).sample(Request(n=5, seed=4))).tolist(), "the same bits as here"
    assert (told["like"], told["example"]) == (2, 1)
    assert bundle_digest(bundle) == digest
    compiled = {path.name.partition(".")[0] for path in bundle.rglob("*.pyc")}
    assert compiled <= {"model"}, "MLflow compiles model.py beside it; the components are left as they were"


def test_rcg_samples_without_mlflow(bundle: Path, clean_python: Path, tmp_path: Path) -> None:
    drawn = json.loads(_run(clean_python, WITHOUT_MLFLOW.format(bundle=str(bundle)), tmp_path))
    assert drawn == to_uint8(Bundle.load(bundle).sample(Request(n=5, seed=4))).tolist()


LOAD = """
import mlflow
try:
    mlflow.pyfunc.load_model({bundle!r})
    print("loaded")
except Exception as error:
    print(str(error).splitlines()[0])
"""


def test_code_that_was_altered_is_not_run(bundle: Path, clean_python: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    code, ran = folder / "components/bundle/serving.py", tmp_path / "ran"
    honest, times = code.read_text(), (code.stat().st_atime, code.stat().st_mtime)
    planted = honest.replace("import math\n", f"import math; open({str(ran)!r}, 'w')\n")
    code.write_text(planted)
    said = _run(clean_python, LOAD.format(bundle=str(folder)), tmp_path)
    assert f"the bundle {folder} is damaged, copy it again: components/bundle/serving.py is altered" in said
    py_compile.compile(str(code), doraise=True)  # beside the honest source, which it claims to be compiled from
    compiled = Path(importlib.util.cache_from_source(str(code)))
    code.write_text(honest)
    os.utime(code, times)
    head = compiled.read_bytes()[:8] + struct.pack("<II", int(times[1]), len(honest.encode()))
    compiled.write_bytes(head + compiled.read_bytes()[16:])
    assert _run(clean_python, LOAD.format(bundle=str(folder)), tmp_path) == "loaded"
    assert not ran.exists()
