"""Images from a registered bundle, sampled as a consumer samples: by the bundle's own code, in its own process."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from components.errors import ArtifactError
from flows.registry import Version, resolve
from flows.tracking import Tracking

_DRAW = """
import os
import sys

import numpy as np
import torch

sys.dont_write_bytecode, sys.pycache_prefix = True, os.devnull  # compiled files are not part of what was checked
folder, out, n, seed, device = sys.argv[1:]
sys.path.insert(0, folder)
try:
    from components.images.pictures import to_uint8
    from components.bundle.bundle import Bundle
    from components.bundle.request import Request
except ModuleNotFoundError:  # a bundle of before the rooms
    from components.data.pictures import to_uint8
    from components.rcg import RCG

if not sys.modules["components"].__file__.startswith(folder):
    raise SystemExit("the bundle's own code was not imported")
n, seed = int(n), int(seed)
if "components.rcg" in sys.modules:
    rcg = RCG.load(folder, device=device)
    size = rcg.card.sampling.batch_size
    blocks = [to_uint8(rcg.sample(min(size, n - first), seed, first=first)) for first in range(0, n, size)]
else:
    system = Bundle.load(folder, device=device).system
    blocks = [to_uint8(system.images(batch)) for batch in system.batches(Request(n=n, seed=seed))]
np.save(out, np.concatenate(blocks))
"""


def fetch_bundle(tracking: Tracking, name: str, version: Version, cache: Path) -> Path:
    """The version's folder on this machine, checked byte by byte. Raises: MissingError, TamperedError."""
    return resolve(f"models:/{name}/{version.number}", tracking, cache)


def draw_images(folder: Path, n: int, seed: int, device: str) -> np.ndarray:
    """Shapes: (n, px, px, 3) uint8. Raises: ArtifactError when the bundle cannot be loaded or sampled."""
    with tempfile.TemporaryDirectory(prefix="rcg-gate-") as scratch:
        out = Path(scratch, "images.npy")
        command = [sys.executable, "-I", "-c", _DRAW, str(folder), str(out), str(n), str(seed), device]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not out.is_file():
            said = done.stderr.strip().splitlines()
            raise ArtifactError(
                "the registered bundle cannot be loaded and sampled",
                got=f"{folder}: {said[-1] if said else f'exit code {done.returncode}'}",
                fix=f"try it alone: rcg sample --model {folder}",
            )
        images: np.ndarray = np.load(out)
    return images
