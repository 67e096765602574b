"""The one training loop: every stage that fits weights goes through train().

A step is a pure function of the weights before it and (config.seed, step): data order, noise and learning rate have no
state of their own. So a resumed run has the bits of an uninterrupted one, and the noise of a row does not depend on the
number of workers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.base import Metrics
from components.errors import ConfigError, DivergedError, RcgError, RetryableError
from components.training.config import TrainConfig
from components.training.curve import Curve, diverged
from components.training.distributed import any_rank, gather_objects
from components.training.modes import in_eval_mode
from components.training.optim import lr_at
from components.training.order import Batches, Order
from components.training.parallel import gather, in_training, on_device, recomputing
from components.training.report import Report
from components.training.step import Stepper
from components.training.threads import fitting_threads, step_flops
from components.training.throughput import Meter, Work, work_of_example
from components.training.trainable import Fetch, Preview, Trainable
from components.training.worker import Worker

__all__ = ["Fetch", "Preview", "TrainResult", "Trainable", "train"]

_AGREE_EVERY = 8
"""Steps between the moments when several ranks ask each other whether one of them was told to stop."""


@dataclass(frozen=True)
class TrainResult:
    """curve: one record {"step", "loss", …reported scalars, "lr"} per log interval, however often resumed.

    Complete on rank 0; means over all ranks' rows.
    """

    curve: list[dict[str, float]]


def train(
    trainable: Trainable,
    fetch: Fetch,
    examples: int | Order,
    config: TrainConfig,
    worker: Worker,
    *,
    preview: Preview | None = None,
) -> TrainResult:
    """Fit trainable in place on worker.device, resuming from worker.checkpoints. Every rank calls it, once per stage.

    Raises: DivergedError; RetryableError, after saving a checkpoint, when asked to stop.
    """
    if config.batch_size < worker.world_size:
        what = f"batch_size is {config.batch_size} but there are {worker.world_size} workers"
        raise ConfigError(what, fix="use at most batch_size workers")
    run = _Run(trainable, config, worker, preview)
    batches = Batches(fetch, examples, config, worker)
    run.work = work_of_example(trainable, fetch, len(batches.order), config)
    with fitting_threads(step_flops(run.work, config, worker), worker), recomputing(run.live, worker):
        try:
            for step, batch in batches.between(run.restore(), config.steps, run.meter.awaited):
                scalars = run.stepper(step, batch)
                run.curve.add(step + 1, scalars, run.stepper.share)
                run.tell(step + 1)
                run.keep(step + 1)
        except DivergedError:
            worker.checkpoints.flush()  # the error names the last good checkpoint, so it has to be there
            raise
    run.meter.end()
    gather(run.live, trainable)
    trainable.to(worker.device)
    return TrainResult(run.curve.records)


class _Run:
    """One training in progress on one rank. `done` is the number of steps taken."""

    def __init__(self, trainable: Trainable, config: TrainConfig, worker: Worker, preview: Preview | None) -> None:
        self.trainable, self.config, self.worker, self.preview = trainable, config, worker, preview
        self.live = in_training(trainable, worker)
        self.stepper, self.curve = Stepper(self.live, config, worker), Curve(worker)
        self.last_good: int | None = None
        self.meter, self.work = Meter(worker), Work(0.0, 0.0)

    def restore(self) -> int:
        """Continue from the newest checkpoint; returns the steps done."""
        self.last_good = self.worker.checkpoints.load_latest(self._room)
        done = self.last_good or 0
        if len(set(gather_objects(self.worker, done))) > 1:
            raise RetryableError("the workers found different checkpoints", fix="run the same command again")
        return done

    def _room(self, done: int, rest: Any, shapes: Mapping[str, torch.Size]) -> Mapping[str, Tensor]:
        mine = self.config.model_dump(mode="json")
        if rest["config"] != mine:
            raise RcgError(f"the checkpoint of step {done} is of another training", got=rest["config"], expected=mine)
        self.curve.load(rest["curve"])
        return self.stepper.make_room(shapes)

    def tell(self, done: int) -> None:
        """Report at the end of a log interval and when a preview is due."""
        last = done == self.config.steps
        due = self.preview is not None and (done % self.preview.every == 0 or last)
        logs = done % self.config.log_every == 0 or last
        if not (due or logs):
            return
        metrics = self._close(done) if logs else {}
        images = self._draw(done) if due else {}
        self.worker.report(Report(done, metrics, images, self.config.steps))

    def _close(self, done: int) -> Metrics:
        means = self.curve.close(done, {"lr": lr_at(self.config, done - 1)}, self.last_good)
        return means | self.meter.close(self.work, self.config.precision)

    @torch.no_grad()
    def _draw(self, done: int) -> Mapping[str, np.ndarray]:
        """Pictures on rank 0. Collective."""
        gather(self.live, self.trainable)
        if self.preview is None or self.worker.rank != 0:
            return {}
        with on_device(self.trainable, self.worker), in_eval_mode(self.trainable):
            return self.preview.draw(done)

    def keep(self, done: int) -> None:
        """Save a checkpoint when it is time, at the end, and before stopping on request."""
        last = done == self.config.steps
        stop = not last and self._told_to_stop(done)
        if not (last or stop or done % self.worker.checkpoint_every == 0):
            return
        self.curve.settle(self.last_good)
        if not self.stepper.is_finite():
            raise diverged("weights stopped being finite", done, self.last_good)
        rest = {"curve": self.curve.state(), "config": self.config.model_dump(mode="json")}
        self.worker.checkpoints.save(done, self.stepper.tensors(), rest, wait=last or stop)
        self.last_good = done
        if stop:
            raise RetryableError(f"told to stop: saved a checkpoint of step {done}", fix="run the same command again")

    def _told_to_stop(self, done: int) -> bool:
        if self.worker.world_size > 1 and done % _AGREE_EVERY:
            return False
        return any_rank(self.worker, self.worker.stopping())
