"""A stage in small: trains through the real loop, then draws rows that are shared out to the workers."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from components.base import Batch, Metrics
from components.config import Config
from components.errors import DataError
from components.rng import BatchRng, image_rng
from components.training.config import EmaConfig, TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.loop import Preview, train
from components.training.worker import Worker
from components.weights import save_weights
from flows.identity.artifact import Inputs, Output
from tests.support import toys

DRAWN, PER_FILE = 12, 3
N_COUNTED = 2
"""Examples on which a training counts its work before the first step; a share of a step has more."""


class ToyParams(Config):
    numerics: int
    train: TrainConfig
    kill_at: int | None
    """The last of several ranks kills itself while it fetches this step, once, and once `durable` is."""
    durable: int | None
    """A checkpoint of this step can be read when the kill comes; uploads go on beside the steps."""
    bad_data_at: int | None
    """The last rank finds a damaged picture here."""
    stop_at: int | None
    """The driver is told to stop while this step is fetched, once."""
    driver: int
    """Process id of the driver."""
    marks: Path
    """Folder that remembers, across attempts, what happened."""


def run(params: ToyParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    model = GeneratorTrainable(toys.ToyGenerator(), EmaConfig.tiny())
    steps: list[int] = []

    def fetch(indices: np.ndarray, rng: BatchRng) -> Batch:
        if len(indices) > N_COUNTED:
            steps.append(0)
            _disturb(params, worker, len(steps))
        return toys.fetch(indices, rng)

    def draw(step: int) -> Mapping[str, np.ndarray]:
        return {"grid": np.full((4, 4, 3), step, np.uint8)}

    result = train(model, fetch, toys.N_EXAMPLES, params.train, worker, preview=Preview(8, draw))
    with (params.marks / f"rank{worker.rank}").open("a") as file:
        file.write(f"{len(steps)} ")
    if worker.rank == 0:
        with out.file("weights.safetensors") as path:
            save_weights(path, model.result.state_dict())
        out.write_json("plots/curve.json", result.curve)
    mine = worker.rows(DRAWN // PER_FILE)
    for i in range(mine.start, mine.stop):
        rng = image_rng(7, i * PER_FILE, (i + 1) * PER_FILE, stream="toy")
        with torch.no_grad():
            rows = torch.tanh(rng.normal(64) @ torch.sin(torch.arange(64.0 * 64)).reshape(64, 64))
        out.write_bytes(f"drawn/{i}.bin", rows.numpy().tobytes())
    return {"loss": result.curve[-1]["loss"]} if worker.rank == 0 else {}


def _disturb(params: ToyParams, worker: Worker, n_fetched: int) -> None:
    if worker.rank != worker.world_size - 1:
        return
    if n_fetched == params.stop_at and _first(params.marks / "stopped"):
        os.kill(params.driver, signal.SIGTERM)
        time.sleep(2)  # longer than the driver needs to pass it on
    if n_fetched == params.kill_at and worker.world_size > 1 and _first(params.marks / "killed"):
        _wait_for_checkpoint(worker, params.durable)
        os.kill(os.getpid(), signal.SIGKILL)
    if n_fetched == params.bad_data_at:
        with (params.marks / "seen").open("a") as file:
            file.write("x")
        raise DataError("picture 3 is damaged", got="half a file")


def _wait_for_checkpoint(worker: Worker, step: int | None) -> None:
    def room(_step: int, _rest: object, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
        return {name: torch.zeros(shape) for name, shape in shapes.items()}

    while step is not None and (worker.checkpoints.load_latest(room) or 0) < step:
        time.sleep(0.05)


def _first(mark: Path) -> bool:
    if mark.exists():
        return False
    mark.touch()
    return True
