"""benchmarks/gpu.py runs here at a small size, so that it runs where there is a GPU; it needs torch and timm alone."""

import json
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]
_LOADED = """
import sys
from benchmarks.gpu import main
code = main(["--tiny", "--json", sys.argv[1]])
loaded = {name.partition(".")[0] for name in sys.modules}
print("loaded", sorted(loaded & {"ray", "mlflow", "dvc", "kubernetes", "flows"}))
sys.exit(code)
"""


def test_every_network_is_compared_and_every_line_has_numbers(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, str(out)], cwd=REPO, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "loaded []"
    lines = json.loads(out.read_text())["lines"]
    compared = {line["what"].partition(",")[0] for line in lines if "against the CPU" in line["what"]}
    assert {"dit", "hybrid", "adm", "ldm", "mage", "residual_mlp", "transformer"} <= compared
    timed = [line for line in lines if line["examples_per_s"] is not None]
    assert [line["what"] for line in timed] == [
        "train residual_mlp",
        "train mage",
        "train mage",
        "train dit",
        "train adm",
        "encode, ViT-B",
        "decode, VQGAN",
        "sample rdm of mage-b",
        "sample pixels of mage-b",
    ]
    assert all(line["tflops_per_s"] > 0 for line in timed)
