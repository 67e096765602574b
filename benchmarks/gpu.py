"""Are networks right on this GPU, and how fast are they? One command, eight minutes at most:

    python -m benchmarks.gpu [--json FILE] [--minutes 8] [--compile]
    python -m benchmarks.gpu --tiny              the same on small networks, in seconds, on any device

Needs torch, timm and what components/ imports (numpy, pydantic, jaxtyping, safetensors, PyYAML): no Ray, no MLflow, no
DVC. First every kind of network is compared with itself on the CPU, both in fp32, and in bf16; then presets are timed:
training steps in bf16, encoding, decoding, sampling. FLOP/s and MFU as in components/training/throughput.py. The exit
code is 1 when a network differs, or did not fit.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import yaml
from pydantic import TypeAdapter
from torch import Tensor, nn

from components.base import Batch
from components.codecs.config import CodecConfig
from components.encoders.config import MoCoV3Config
from components.generators.config import GeneratorData
from components.generators.sampling import DiffusionSampling, MaskedSampling
from components.pixels import PixelConfig
from components.rdm import RdmModelConfig
from components.rng import BatchRng, RowRng
from components.target import TargetSpec
from components.training.checkpoint import NoCheckpoints
from components.training.config import EmaConfig, TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.memory import is_out_of_memory
from components.training.step import Stepper
from components.training.throughput import Flops, peak_flops, work_of_example
from components.training.worker import Worker

PRESETS = Path(__file__).parents[1] / "presets"
FP32, BF16 = 1e-3, 5e-2
"""Largest relative differences of losses, and of gradients' norms, from fp32 on the CPU."""
_PIXELS = TargetSpec(space="pixels", shape=(3, 8, 8), dtype="uint8", n_codes=None, image_px=8)
_TOKENS = TargetSpec(space="tokens", shape=(4, 4), dtype="int32", n_codes=8, image_px=8)
_ROWS, _WARM_UP, _MOST_CALLS = 4, 2, 20


@dataclass(frozen=True)
class Line:
    """One row of the table. `error`: the largest relative difference, or why there are no numbers."""

    what: str
    rows: int = 0
    examples_per_s: float | None = None
    tflops_per_s: float | None = None
    mfu: float | None = None
    memory_gb: float | None = None
    error: str = ""
    wrong: bool = False

    def __str__(self) -> str:
        numbers = (self.examples_per_s, self.tflops_per_s, None if self.mfu is None else 100 * self.mfu, self.memory_gb)
        told = "".join(f"{'' if x is None else f'{x:.4g}':>11}" for x in numbers)
        return f"{self.what:<34}{self.rows or '':>6}{told}  {self.error}".rstrip()


HEAD = f"{'':<34}{'rows':>6}{'examples/s':>11}{'TFLOP/s':>11}{'MFU %':>11}{'GB':>11}"


def networks() -> Iterator[tuple[str, nn.Module, Batch]]:
    """Every kind of generator at a small size, with weights that are not zero anywhere, and a batch."""
    for union, spaces in ((PixelConfig, {"mage": _TOKENS}), (RdmModelConfig, {})):
        for member in get_args(get_args(union)[0]):
            tiny = member.tiny()
            known = tuple(condition for condition in tiny.conditions if condition.field in ("representation", "class"))
            config = tiny.model_copy(update={"conditions": known})
            spec = spaces.get(config.kind, _PIXELS)
            dim = getattr(config, "dim", 6)
            network = config.build(GeneratorData(target=spec, dim=dim, classes=("a", "b")))
            seeded = torch.Generator().manual_seed(0)
            for parameter in network.parameters():
                nn.init.normal_(parameter, std=0.1, generator=seeded)
            yield config.kind, network, rows_of(spec, dim, _ROWS)


def rows_of(spec: TargetSpec, dim: int, n: int) -> dict[str, Tensor]:
    """A random batch of what every cache has."""
    seeded = torch.Generator().manual_seed(n)
    stored = torch.randint(spec.n_codes or 256, (n, *spec.shape), generator=seeded)
    return {
        "target": stored.to(getattr(torch, spec.dtype)),
        "representation": torch.randn(n, dim, generator=seeded),
        "class": torch.arange(n) % 2,
    }


def correctness(device: torch.device) -> Iterator[Line]:
    """Loss and norm of the gradient on this device against those on the CPU."""
    for name, network, batch in networks():
        expected = _loss_and_norm(network, batch, torch.device("cpu"), bf16=False)
        for precision, most in (("fp32", FP32), ("bf16", BF16)):
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # fp32 is fp32
                found = _loss_and_norm(network, batch, device, bf16=precision == "bf16")
            off = max(abs(mine - theirs) / abs(theirs) for mine, theirs in zip(found, expected, strict=True))
            wrong = not off <= most
            yield Line(f"{name}, {precision} against the CPU", _ROWS, error=f"{off:.1e}{' WRONG' * wrong}", wrong=wrong)


class _DrawnOnCpu(BatchRng):
    """The same noise on every device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(0, _ROWS)
        self._to = device

    def _of_rows(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        return super()._of_rows(draw, shape).to(self._to)

    def shared_uniform(self, *shape: int) -> Tensor:
        return super().shared_uniform(*shape).to(self._to)


def _loss_and_norm(network: nn.Module, batch: Batch, device: torch.device, *, bf16: bool) -> tuple[float, float]:
    network.to(device).zero_grad()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss = network({name: values.to(device) for name, values in batch.items()}, _DrawnOnCpu(device)).mean()
    loss.backward()
    norm = nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
    return float(loss.detach()), float(norm)


def training(preset: str, stage: str, rows: int, device: torch.device, *, tiny: bool, compiled: bool) -> Line:
    """Optimizer steps of a preset's stage in bf16, EMA included."""
    section = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())[stage]
    config: Any = TypeAdapter(RdmModelConfig if stage == "rdm" else PixelConfig).validate_python(section["model"])
    config, rows = (type(config).tiny(), _ROWS) if tiny else (config, rows)
    spec, dim = _spec_of(config.kind, tiny=tiny), getattr(config, "dim", 6 if tiny else 256)
    with device:
        generator = config.build(GeneratorData(target=spec, dim=dim, classes=("a", "b")))
    trainable = GeneratorTrainable(generator.to(device).train(), EmaConfig(decay=0.9999, rule="ramped"))
    train = TrainConfig.tiny().model_copy(update={"steps": 10**6, "batch_size": rows, "precision": "bf16"})
    worker = Worker(0, 1, device, NoCheckpoints(), print, Path(), 10**9, 1, compiled=compiled)
    batch = {name: values.to(device) for name, values in rows_of(spec, dim, rows).items()}
    work = work_of_example(trainable, lambda indices, _rng: rows_of(spec, dim, len(indices)), rows, train).step
    stepper, count = Stepper(trainable, train, worker), iter(range(10**6))
    name = f"train {config.kind}" if tiny else f"train {stage} of {preset.removeprefix('paper-')}"
    return measured(name, rows, lambda: stepper(next(count), batch), device, work)


def _spec_of(kind: str, *, tiny: bool) -> TargetSpec:
    """What the papers' codecs encode to at 256 pixels."""
    if tiny:
        return _TOKENS if kind == "mage" else _PIXELS
    if kind == "mage":
        return TargetSpec(space="tokens", shape=(16, 16), dtype="int32", n_codes=1024, image_px=256)
    if kind == "adm":
        return TargetSpec(space="pixels", shape=(3, 256, 256), dtype="uint8", n_codes=None, image_px=256)
    return TargetSpec(space="latents", shape=(4, 32, 32), dtype="float16", n_codes=None, image_px=256)


def inference(what: str, rows: int, device: torch.device, *, tiny: bool) -> Line:
    """Encoding by the encoder of MAGE-B's preset, decoding by its codec, sampling by its generators, in fp32."""
    preset = yaml.safe_load((PRESETS / "paper-mage-b.yaml").read_text())
    rows = _ROWS if tiny else rows
    with device:  # weights are made there; noise is drawn on the CPU, so calls come after it
        call = _CALLS[what](preset, rows, device, tiny)
    with torch.no_grad():
        call()
        with Flops() as counter:
            call()
        return measured(what, rows, call, device, counter.total / rows, precision="fp32")


def _encode(preset: Any, rows: int, device: torch.device, tiny: bool) -> Callable[[], object]:
    section = preset["encoder"]["model"] | {"weights": None}
    config = MoCoV3Config.tiny() if tiny else MoCoV3Config.model_validate(section)
    encoder = config.build().to(device)
    return partial(encoder, torch.rand(rows, 3, config.input_px, config.input_px))


def _decode(preset: Any, rows: int, device: torch.device, tiny: bool) -> Callable[[], object]:
    config: Any = TypeAdapter(CodecConfig).validate_python(preset["codec"]["model"])
    codec = (type(config).tiny() if tiny else config).build().to(device).eval()
    spec = codec.spec
    codes = torch.zeros(rows, *spec.shape, dtype=getattr(torch, spec.dtype))
    return lambda: codec.decode(codes)


def _generator(preset: Any, stage: str, device: torch.device, tiny: bool) -> tuple[Any, int]:
    union: Any = RdmModelConfig if stage == "rdm" else PixelConfig
    config: Any = TypeAdapter(union).validate_python(preset[stage]["model"])
    config = type(config).tiny() if tiny else config
    dim = getattr(config, "dim", 6 if tiny else 256)
    data = GeneratorData(target=_spec_of(config.kind, tiny=tiny), dim=dim, classes=("a", "b"))
    return config.build(data).to(device).eval(), dim


def _sample_rdm(preset: Any, rows: int, device: torch.device, tiny: bool) -> Callable[[], object]:
    rdm, _ = _generator(preset, "rdm", device, tiny)
    how = DiffusionSampling.tiny() if tiny else DiffusionSampling.model_validate(preset["sample"]["rdm"])
    return lambda: rdm.sample({}, how, RowRng(range(rows), device=device))


def _sample_mage(preset: Any, rows: int, device: torch.device, tiny: bool) -> Callable[[], object]:
    mage, dim = _generator(preset, "pixels", device, tiny)
    given = {"representation": torch.zeros(rows, dim)}
    how = MaskedSampling.tiny() if tiny else MaskedSampling.model_validate(preset["sample"]["pixels"])
    return lambda: mage.sample(given, how, RowRng(range(rows), device=device))


_CALLS: dict[str, Callable[[Any, int, torch.device, bool], Callable[[], object]]] = {
    "encode, ViT-B": _encode,
    "decode, VQGAN": _decode,
    "sample rdm of mage-b": _sample_rdm,
    "sample pixels of mage-b": _sample_mage,
}


def measured(
    what: str, rows: int, call: Callable[[], object], device: torch.device, flops: float, *, precision: str = "bf16"
) -> Line:
    """Calls for two seconds, at most twenty; `flops`: of one example."""
    for _ in range(_WARM_UP):
        call()
    _synchronize(device)
    start, n = time.perf_counter(), 0
    while n < _MOST_CALLS and (n == 0 or time.perf_counter() - start < 2):
        call()
        _synchronize(device)
        n += 1
    rate, peak = n * rows / (time.perf_counter() - start), peak_flops(device, precision)
    memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    return Line(what, rows, rate, rate * flops / 1e12, None if peak is None else rate * flops / peak, memory)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def plan(device: torch.device, *, tiny: bool, compiled: bool) -> Iterator[tuple[str, Callable[[], Line]]]:
    """What is timed, in order, by name."""
    for preset, stage, rows in (
        ("paper-mage-b", "rdm", 256),
        ("paper-mage-b", "pixels", 64),
        ("paper-mage-l", "pixels", 32),
        ("paper-dit-xl-2", "pixels", 32),
        ("paper-adm-256", "pixels", 8),
    ):
        yield f"train {preset}", partial(training, preset, stage, rows, device, tiny=tiny, compiled=compiled)
    for what, rows in zip(_CALLS, (256, 64, 256, 64), strict=True):
        yield what, partial(inference, what, rows, device, tiny=tiny)


def run(device: torch.device, *, minutes: float, tiny: bool, compiled: bool) -> Iterator[Line]:
    """All lines as they come; what there is no time left for is said."""
    end = time.monotonic() + 60 * minutes
    yield from correctness(device)
    for name, call in plan(device, tiny=tiny, compiled=compiled):
        if time.monotonic() > end:
            yield Line(name, error="no time left")
            continue
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        try:
            yield call()
        except (RuntimeError, ValueError) as error:
            if not is_out_of_memory(error):
                raise
            yield Line(name, error="out of memory", wrong=True)


def main(arguments: list[str]) -> int:
    """Print one table, then JSON; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the numbers go, too")
    parser.add_argument("--minutes", type=float, default=7.0, help="after so many nothing new begins")
    parser.add_argument("--tiny", action="store_true", help="small networks")
    parser.add_argument("--compile", action="store_true", help="train on torch.compile's kernels")
    given = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(f"{name}, torch {torch.__version__}\n{HEAD}", flush=True)
    lines = []
    for line in run(device, minutes=given.minutes, tiny=given.tiny, compiled=given.compile):
        print(line, flush=True)
        lines.append(line)
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "numpy": np.__version__}
    document = json.dumps({"device": name, "versions": versions, "lines": [asdict(line) for line in lines]})
    print(document)
    if given.json is not None:
        given.json.write_text(document + "\n")
    return int(any(line.wrong for line in lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
