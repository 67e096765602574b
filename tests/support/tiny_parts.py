"""A tiny stage without parents: rows in memoised parts, as `encode` writes its shards. Waits and fails on request."""

import time
from pathlib import Path

import numpy as np

from components.base import Metrics
from components.config import Config
from components.errors import DataError
from components.rng import derive_seed
from components.training.report import Report
from components.training.worker import Worker
from flows.identity.artifact import Inputs, Output


class PartsParams(Config):
    numerics: int
    n_parts: int
    rows: int


def run(params: PartsParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Waits while the source folder holds `hold`, then fails if it holds `fail`. Neither is part of the identity."""
    assert inputs.collection_lock is not None
    lock = inputs.collection_lock.read_text()
    while Path(inputs.source, "hold").exists():
        time.sleep(0.02)
    if Path(inputs.source, "fail").exists():
        raise DataError("an image is broken", got="cat.png")

    for part in range(params.n_parts):

        def make(path: Path, part: int = part) -> None:
            rng = np.random.default_rng(derive_seed(lock, part))
            path.write_bytes(rng.standard_normal((params.rows, 6)).astype(np.float32).tobytes())
            with Path(inputs.source, "made").open("a") as log:
                log.write(f"{part}\n")

        out.memoised(f"parts/{part}.bin", f"{lock}/{part}/{params.rows}", make)
        worker.report(Report(part + 1, {"rows": float(params.rows)}, total_steps=params.n_parts))
    out.write_json("index.json", {"parts": params.n_parts})
    return {"rows": float(params.n_parts * params.rows)}
