"""A tiny training stage on the real training loop. Waits while the file `hold` exists in the source folder."""

import time
from pathlib import Path

import numpy as np
import torch

from components.base import Batch, Metrics
from components.config import Config
from components.rng import BatchRng
from components.training.config import EmaConfig, TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.loop import train
from components.training.trainable import Preview
from components.training.worker import Worker
from components.weights import save_weights
from flows.identity.artifact import Inputs, Output
from tests.support.toys import ToyGenerator


class FitParams(Config):
    numerics: int
    train: TrainConfig


def run(params: FitParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    n_parts = inputs["parts"].read_json("index.json")["parts"]
    parts = [np.fromfile(inputs["parts"].path(f"parts/{i}.bin"), np.float32) for i in range(n_parts)]
    rows = torch.from_numpy(np.concatenate(parts)).reshape(-1, 6)

    def fetch(indices: np.ndarray, rng: BatchRng) -> Batch:
        return {"representation": rows[indices] + 0.1 * rng.integers(3, 1)}

    def draw(step: int) -> dict[str, np.ndarray]:
        while Path(inputs.source, "hold").exists():
            time.sleep(0.02)
        return {"grid": np.full((4, 4, 3), step % 256, np.uint8)}

    model = GeneratorTrainable(ToyGenerator(), EmaConfig(decay=0.9, rule="ramped"))
    result = train(model, fetch, len(rows), params.train, worker, preview=Preview(every=12, draw=draw))
    with out.file("weights.safetensors") as path:
        save_weights(path, model.result.state_dict())
    out.write_json("plots/loss.json", [{"step": r["step"], "loss": r["loss"]} for r in result.curve])
    return {"loss": result.curve[-1]["loss"]}
