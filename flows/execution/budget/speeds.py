"""A few steps of the parts that a training is made of, timed on this machine: no weights are kept.

Seconds are those of a quiet machine (clock.py). What else runs here now is said beside them.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.execution.budget.clock import timed
from flows.execution.budget.recipe import BATCH, SIZES, dim, recipe, sizes
from flows.execution.budget.survey import Survey
from flows.pipeline.params import Params, check_params
from flows.settings import WorkerSettings

if TYPE_CHECKING:
    import numpy as np
    import torch

    from components.base import Batch
    from components.metrics.networks.base import FeatureNetwork
    from components.rng import BatchRng
    from components.training.config import TrainConfig
    from components.training.trainable import Trainable
    from components.training.worker import Worker

_START_FACTOR = 3.8
"""A stage's start (imports, params, store, tracking) over the processor time in which torch is imported."""
_TORCH_S = 2.5
_ENCODER_PASSES = 8
"""Forward passes that a training step of the encoder is worth, for each picture: two views, backward, momentum."""
_JUDGE_PASSES = 3
_N_LOOKED_AT = 32
_N_TIMED, _LEAST_S, _MOST_S = 3, 0.5, 4.0
"""Steps that are timed at least, in how many seconds at least, and seconds after which no further one is."""


@dataclass(frozen=True)
class Speeds:
    """Seconds on a quiet machine."""

    start_s: float
    """Of each stage, before it does anything."""
    rdm_s: float
    """Of a training step."""
    look_s: Mapping[int, float]
    """Of one picture through the encoder."""
    encoder_s: Mapping[int, float]
    """Nothing where the encoder is a file."""
    pixels_s: Mapping[int, float]
    evaluate_s: Mapping[int, float]
    """Of a training step of the judge; nothing where it is a file."""
    judge_s: Mapping[int, float]
    """Of one picture through the judge."""
    pixels_flops: Mapping[int, float]
    """Of a training step of the painter."""
    busy: float
    """Waiting time over that of a quiet machine while this was measured: 1 is quiet."""
    device: str
    threads: int
    """Of the painter at the largest size."""


def measure(survey: Survey, settings: WorkerSettings, say: Callable[[str], None]) -> Speeds:
    """Time the parts at every size that the pictures have. Raises: ConfigError for a device that is not here."""
    from flows.executors.base import device_name, fit_threads, pick_device

    start_s = _START_FACTOR * _import_s()
    device = pick_device(settings.device)
    clock = _Clock(device, fit_threads() if settings.fit_threads is None else settings.fit_threads)
    found: dict[str, dict[int, float]] = {
        "look": {},
        "encoder": {},
        "pixels": {},
        "evaluate": {},
        "judge": {},
        "flops": {},
    }
    rdm_s = 0.0
    for size in sizes(survey):
        say(f"timing at {size} px")
        steps = dict.fromkeys(("encoder", "rdm", "pixels", "evaluate"), 10)
        params = check_params(recipe(survey, size, steps, n_views=1, n_samples=100), "what rcg init writes")
        if survey.encoder is None:
            found["encoder"][size] = clock.seconds(*_encoder(params))
            found["look"][size] = found["encoder"][size] / BATCH["encoder"] / _ENCODER_PASSES
        else:
            found["look"][size] = found["look"].get(SIZES[0]) or clock.look_s(*_encoder_of(params))
        trainable, rows, how = _pixels(params, dim(survey))
        found["pixels"][size] = clock.seconds(trainable, rows, how)
        found["flops"][size] = clock.flops
        if survey.judge is None:
            found["evaluate"][size] = clock.seconds(*_judge(params))
            found["judge"][size] = found["evaluate"][size] / BATCH["evaluate"] / _JUDGE_PASSES
        else:
            found["judge"][size] = clock.look_s(*_judge_of(params, size))
        rdm_s = rdm_s or clock.seconds(*_rdm(params))
    return Speeds(
        start_s=start_s,
        rdm_s=rdm_s,
        look_s=found["look"],
        encoder_s=found["encoder"],
        pixels_s=found["pixels"],
        evaluate_s=found["evaluate"],
        judge_s=found["judge"],
        pixels_flops=found["flops"],
        busy=clock.busy,
        device=device_name(device),
        threads=clock.threads,
    )


def _import_s() -> float:
    """Processor time in which torch is imported: none where it is already, then about what a core of 2020 needs."""
    if "torch" in sys.modules:
        return _TORCH_S
    began = time.process_time()
    import torch  # noqa: F401

    return time.process_time() - began


class _Clock:
    """Times training steps with the threads that a stage would take."""

    def __init__(self, device: "torch.device", fits: bool) -> None:
        self.device, self.fits = device, fits
        self.flops, self.threads = 0.0, 1
        self._waited = self._quiet = 0.0

    @property
    def busy(self) -> float:
        return max(1.0, self._waited / self._quiet) if self._quiet else 1.0

    def seconds(self, trainable: "Trainable", fetch: Any, how: "TrainConfig") -> float:
        """Of a training step: the mean of a few, with the making of their batches."""
        from components.training.step import Stepper
        from components.training.threads import fitting_threads, step_flops
        from components.training.throughput import work_of_example

        worker = self._worker()
        trainable.to(self.device)
        self.flops = step_flops(work_of_example(trainable, fetch, how.batch_size, how), how, worker)
        with fitting_threads(self.flops, worker) as self.threads:
            stepper = Stepper(trainable, how, worker)
            stepper(0, _batch(fetch, how, self.device))  # prepares kernels
            return self._mean(lambda step: stepper(step + 1, _batch(fetch, how, self.device)))

    def look_s(self, network: Any, images: Any) -> float:
        """One picture through a ready-made network."""
        import torch

        network = network.to(self.device)
        images = images.to(self.device) if isinstance(images, torch.Tensor) else images
        self.threads = torch.get_num_threads()
        with torch.no_grad():
            network(images)
            return self._mean(lambda _step: network(images)) / _N_LOOKED_AT

    def _mean(self, step: Callable[[int], object]) -> float:
        """Seconds of step(0), step(1), … on a quiet machine."""
        import torch

        began, n = time.monotonic(), 0
        with timed(self.threads) as took:
            while n < _N_TIMED or time.monotonic() - began < _LEAST_S:
                step(n)
                n += 1
                if time.monotonic() - began > _MOST_S:
                    break
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        seconds = took.quiet_s
        if self.device.type == "cuda":
            seconds = took.waited_s
        else:
            self._waited, self._quiet = self._waited + took.waited_s, self._quiet + took.quiet_s
        return seconds / n

    def _worker(self) -> "Worker":
        from components.training.checkpoint import lone_worker

        return lone_worker(self.device, Path(), fit_threads=self.fits)


def _batch(fetch: Any, how: "TrainConfig", device: "torch.device") -> "Batch":
    import numpy as np

    from components.rng import BatchRng

    batch = fetch(np.arange(how.batch_size), BatchRng(0, how.batch_size))
    return {name: rows.to(device) for name, rows in batch.items()}


def _encoder(params: Params) -> "tuple[Trainable, Any, TrainConfig]":
    from components.encoders.contrastive import MoCoV3Trainer
    from components.nn.vit import seeded_init

    section: Any = params.encoder
    with seeded_init(0):
        trainer = MoCoV3Trainer(section.model, section.contrastive)

    def fetch(indices: "np.ndarray", rng: "BatchRng") -> "Batch":  # noqa: ARG001
        return {"target": rng.uniform(3, section.px, section.px)}

    return trainer, fetch, section.train


def _encoder_of(params: Params) -> "tuple[torch.nn.Module, torch.Tensor]":
    """A ready-made encoder, with any weights, and pictures as it gets them."""
    import torch

    encoder = params.encoder.model.build()
    return encoder, torch.zeros(_N_LOOKED_AT, 3, encoder.input_px, encoder.input_px)


def _judge_of(params: Params, size: int) -> "tuple[FeatureNetwork, np.ndarray]":
    """A ready-made judge, and pictures as it gets them."""
    import numpy as np

    section: Any = params.evaluate.features
    return section.network.load(), np.zeros((_N_LOOKED_AT, size, size, 3), np.uint8)


def _pixels(params: Params, width: int) -> "tuple[Trainable, Any, TrainConfig]":
    import torch

    from components.generators.config import GeneratorData
    from components.nn.vit import seeded_init
    from components.target import TargetSpec
    from components.training.generator import GeneratorTrainable

    section, codec = params.pixels, params.codec.model
    shape = (getattr(codec, "channels", 3), codec.px, codec.px)
    spec = TargetSpec(space="pixels", shape=shape, dtype="uint8", n_codes=None, image_px=codec.px)
    with seeded_init(0):
        generator = section.model.build(GeneratorData(target=spec, dim=width, classes=None))

    def fetch(indices: "np.ndarray", rng: "BatchRng") -> "Batch":  # noqa: ARG001
        target = (rng.uniform(*shape) * 255).to(torch.uint8)
        return {"target": target, "representation": rng.normal(width)}

    return GeneratorTrainable(generator, section.ema), fetch, _train(section)


def _rdm(params: Params) -> "tuple[Trainable, Any, TrainConfig]":
    from components.generators.config import GeneratorData
    from components.nn.vit import seeded_init
    from components.target import TargetSpec
    from components.training.generator import GeneratorTrainable

    section: Any = params.rdm
    width = section.model.dim
    spec = TargetSpec(space="pixels", shape=(1, 8, 8), dtype="uint8", n_codes=None, image_px=8)
    with seeded_init(0):
        generator = section.model.build(GeneratorData(target=spec, dim=width, classes=None))

    def fetch(indices: "np.ndarray", rng: "BatchRng") -> "Batch":  # noqa: ARG001
        return {"representation": rng.normal(width)}

    return GeneratorTrainable(generator, section.ema), fetch, _train(section)


def _judge(params: Params) -> "tuple[Trainable, Any, TrainConfig]":
    from components.metrics.features import FeatureNet, SelfTask
    from components.nn.vit import seeded_init

    section: Any = params.evaluate
    with seeded_init(0):
        task = SelfTask(FeatureNet(section.features, 4))

    def fetch(indices: "np.ndarray", rng: "BatchRng") -> "Batch":  # noqa: ARG001
        return {"image": rng.uniform(3, section.features.px, section.features.px)}

    return task, fetch, section.train


def _train(section: Any) -> "TrainConfig":
    train: TrainConfig = section.train
    return train
