"""Images from a registered bundle, sampled as a consumer samples: by the bundle's own code, in its own process."""

import sys
import tempfile
from pathlib import Path

import numpy as np

from components.errors import ArtifactError, MissingError
from components.store.base import Store
from flows.children import run_apart
from flows.registry import Version, resolve
from flows.runs.records import find_run
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


def fetch_bundle(tracking: Tracking, name: str, version: Version, cache: Path, store: Store) -> Path:
    """The version's folder on this machine, checked byte by byte.

    Whoever may write to the registry can name any folder as a version, and its code would run here. So it has to be
    the bundle of a run in the store. Raises: MissingError for one that is not; TamperedError.
    """
    folder = resolve(f"models:/{name}/{version.number}", tracking, cache)
    if find_run(store, "bundle", version.digest) is None:
        raise MissingError(
            f"the code of version {version.number} is not known: the store has no such bundle",
            got=f"no bundle artifact with content {version.digest[:10]} in {store.uri}",
            fix="`rcg data copy --from` the store that has it",
        )
    return folder


def draw_images(folder: Path, n: int, seed: int, device: str) -> np.ndarray:
    """Shapes: (n, px, px, 3) uint8. Raises: ArtifactError when the bundle cannot be loaded or sampled."""
    with tempfile.TemporaryDirectory(prefix="rcg-gate-", ignore_cleanup_errors=True) as scratch:
        out = Path(scratch, "images.npy")
        command = [sys.executable, "-I", "-c", _DRAW, str(folder), str(out), str(n), str(seed), device]
        done = run_apart(command, Path(scratch))
        if done.returncode != 0 or not out.is_file():
            said = done.stderr.strip().splitlines()
            raise ArtifactError(
                "the registered bundle cannot be loaded and sampled",
                got=f"{folder}: {said[-1] if said else f'exit code {done.returncode}'}",
                fix=f"try it alone: rcg sample --model {folder}",
            )
        images: np.ndarray = np.load(out)
    return images
