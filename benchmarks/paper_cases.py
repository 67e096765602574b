"""What benchmarks/paper_scale.py times: each case sets up one side of one row and returns the call to be timed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.plain import layers
from benchmarks.plain import mage as plain_mage
from benchmarks.plain import rdm as plain_rdm
from components.codecs.vqgan import Vqgan
from components.encoders.base import FrozenEncoder
from components.generators.base import Generator
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.generators.masked import MaskedTokens
from components.generators.sampling import DiffusionSampling, MaskedSampling
from components.nn.vit import seeded_init
from components.rdm import RdmConfig
from components.rng import RowRng
from components.target import TargetSpec
from components.training.checkpoint import NoCheckpoints
from components.training.generator import GeneratorTrainable
from components.training.step import Stepper
from components.training.worker import Worker
from flows.pipeline.params import Params, load_params

PRESET = Path(__file__).parents[1] / "presets/paper-mage-b.yaml"
SIDES = ("plain", "ours")
BATCH = {"rdm": 32, "ddim": 64, "mage": 4, "vit": 32, "vqgan": 4}
FEW_STEPS = 25
"""Steps of DPM-Solver++ whose representation FD is that of 250 DDIM steps; benchmarks/steps.py measures it."""

Timed = tuple[Callable[[], object], int]
"""(the call, examples it makes)."""


@dataclass(frozen=True)
class Case:
    """One row. `published`: seconds per example of the reference, at 160 GFLOP/s; `tolerance`: how far plain may be."""

    what: str
    sides: dict[str, Callable[[], Timed]]
    target: float | None = None
    published: float | None = None
    tolerance: float = 0.15
    shapes: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(m, k, n, count) of the matrix products of one call, where the target is a share of their bare time."""


TOKENS = TargetSpec(space="tokens", shape=(16, 16), dtype="int32", n_codes=1024, image_px=256)


def params() -> Params:
    return load_params(PRESET)


def _rdm(seed: int = 0) -> Diffusion:
    with seeded_init(seed):
        rdm = params().rdm.model.build(GeneratorData(target=TOKENS, dim=256, classes=None))
        for p in rdm.parameters():  # a fresh head is zero; a trained one is not
            if not bool(p.any()):
                torch.nn.init.normal_(p, std=0.02)
    return rdm


def encoder() -> FrozenEncoder:
    built: Any = params().encoder.model
    frozen: FrozenEncoder = built.build()
    return frozen


def _codec() -> Vqgan:
    with seeded_init(1):
        codec: Any = params().codec.model.build()
    vqgan: Vqgan = codec.eval().requires_grad_(False)
    return vqgan


def _mage() -> MaskedTokens:
    with seeded_init(2):
        mage: Any = params().pixels.model.build(GeneratorData(target=TOKENS, dim=256, classes=None))
    model: MaskedTokens = mage
    return model


def _images(n: int) -> Tensor:
    return torch.rand(n, 3, 256, 256, generator=torch.Generator().manual_seed(n))


def _representations(n: int) -> Tensor:
    z = torch.randn(n, 256, generator=torch.Generator().manual_seed(n))
    return (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)


def _stepper(generator: Generator, section: Any, n: int, batch: dict[str, Tensor]) -> Timed:
    trainable = GeneratorTrainable(generator.train(), section.ema)
    run = section.train.model_copy(update={"batch_size": n})
    stepper = Stepper(trainable, run, Worker(0, 1, torch.device("cpu"), NoCheckpoints(), print, Path(), 10**9, 1))
    count = iter(range(10**9))
    return lambda: stepper(next(count), batch), n


def plain_rdm_step(n: int, *, in_loop: bool) -> Callable[[], Timed]:
    def make() -> Timed:
        training = plain_rdm.Training(_rdm(), encoder() if in_loop else None)
        rows = _images(n) if in_loop else _representations(n)
        return lambda: training.step(rows), n

    return make


def rdm_step(n: int) -> Callable[[], Timed]:
    return lambda: _stepper(_rdm(), params().rdm, n, {"representation": _representations(n)})


def plain_ddim() -> Timed:
    rdm, n = _rdm().eval(), BATCH["ddim"]
    ema = plain_rdm.Averaged(rdm)
    return lambda: plain_rdm.sample(rdm, ema, RowRng(range(n)), steps=250, eta=1.0), n


def ddim(how: DiffusionSampling) -> Callable[[], Timed]:
    def make() -> Timed:
        rdm, n = _rdm().eval(), BATCH["ddim"]
        return lambda: rdm.sample({}, how, RowRng(range(n))), n

    return make


def plain_mage_step() -> Timed:
    training, images = plain_mage.Training(_mage(), encoder(), _codec()), _images(BATCH["mage"])
    return lambda: training.step(images), BATCH["mage"]


def mage_step() -> Timed:
    n = BATCH["mage"]
    section = params().pixels
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(1024, (n, 16, 16), generator=rng).to(torch.int32)
    return _stepper(_mage(), section, n, {"target": ids, "representation": _representations(n)})


def plain_generation(steps: int) -> Callable[[], Timed]:
    def make() -> Timed:
        mage, codec, n = _mage().eval(), _codec(), BATCH["mage"]
        z = _representations(n)
        how = {"temperature": 6.0, "guidance": 1.0}
        return lambda: layers.pictures(codec, plain_mage.sample(mage, z, RowRng(range(n)), steps=steps, **how)), n

    return make


def generation(steps: int) -> Callable[[], Timed]:
    def make() -> Timed:
        mage, codec, n = _mage().eval(), _codec(), BATCH["mage"]
        z, how = _representations(n), MaskedSampling(kind="masked", steps=steps, temperature=6.0, guidance=1.0)
        return lambda: decoded(codec, mage.sample({"representation": z}, how, RowRng(range(n)))), n

    return make


@torch.inference_mode()
def decoded(codec: Vqgan, ids: Tensor) -> Tensor:
    return codec.decode(ids)


def plain_vit() -> Timed:
    frozen, images = encoder(), _images(BATCH["vit"])
    return lambda: layers.represent(frozen, images), BATCH["vit"]


def vit() -> Timed:
    frozen, images = encoder(), _images(BATCH["vit"])
    return lambda: frozen(images), BATCH["vit"]


def _ids() -> Tensor:
    return torch.randint(1024, (BATCH["vqgan"], 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.int32)


def plain_decode() -> Timed:
    codec, ids = _codec(), _ids()
    return lambda: layers.pictures(codec, ids.long()), BATCH["vqgan"]


def decode() -> Timed:
    codec, ids = _codec(), _ids()
    return lambda: decoded(codec, ids), BATCH["vqgan"]


def _rdm_shapes(config: RdmConfig, n: int) -> list[tuple[int, int, int, int]]:
    """Forward, gradient of the weights, and of the inputs but for the first layers'."""
    w, e, d = config.width, config.time_dim, config.depth
    layers_of = [(config.dim, w, 1), (w, e, 1), (e, e, 1), (w, w, 2 * d), (e, w, d), (w, config.dim, 1)]
    found = []
    for i, (k, m, count) in enumerate(layers_of):
        found += [(n, k, m, count), (m, n, k, count)] + ([(n, m, k, count)] if i > 1 else [])
    return found


def _vit_shapes(n: int) -> list[tuple[int, int, int, int]]:
    t = n * 197
    matrices = [(t, 768, 2304, 12), (t, 768, 768, 12), (t, 768, 3072, 12), (t, 3072, 768, 12), (n * 196, 768, 768, 1)]
    return [*matrices, (n, 768, 4096, 1), (n, 4096, 4096, 1), (n, 4096, 256, 1)]


REFERENCE = DiffusionSampling(kind="diffusion", sampler="ddim", steps=250, eta=1.0, spacing="reference", guidance=0.0)
FEW = DiffusionSampling(
    kind="diffusion", sampler="dpm_solver_2m", steps=FEW_STEPS, eta=0.0, spacing="trailing", guidance=0.0
)
PAPER_RDM = RdmConfig.model_validate(params().rdm.model.model_dump())
CASES: dict[str, Case] = {
    "rdm-step": Case(
        "RDM step, batch 32: encoder in the loop / cached",
        {"plain": plain_rdm_step(32, in_loop=True), "ours": rdm_step(32)},
        25.0,
        0.253,
    ),
    "rdm-cached": Case(
        "RDM step, batch 32: cached in both",
        {"plain": plain_rdm_step(32, in_loop=False), "ours": rdm_step(32)},
        None,
        0.00958,
        0.5,
    ),
    "rdm-large": Case(
        "RDM step, batch 2048: cached in both",
        {"plain": plain_rdm_step(2048, in_loop=False), "ours": rdm_step(2048)},
        None,
        0.00259,
        0.15,
        _rdm_shapes(PAPER_RDM, 2048),
    ),
    "rdm-sample": Case("RDM, 250 DDIM steps, batch 64", {"plain": plain_ddim, "ours": ddim(REFERENCE)}, 1.3, 0.325),
    "rdm-few": Case(
        f"RDM, 250 DDIM steps / {FEW_STEPS} of DPM-Solver++", {"plain": plain_ddim, "ours": ddim(FEW)}, 8.0, 0.325
    ),
    "mage-step": Case(
        "MAGE-B step, batch 4: frozen nets in the loop / cached",
        {"plain": plain_mage_step, "ours": mage_step},
        2.0,
        3.09,
    ),
    "mage-sample": Case(
        "MAGE-B generation, 4 images, 20 iterations, guidance 1",
        {"plain": plain_generation(20), "ours": generation(20)},
        1.25,
        27.2,
    ),
    "vit": Case(
        "ViT-B/16 encoding, batch 32", {"plain": plain_vit, "ours": vit}, None, 1 / 3.50, 0.15, _vit_shapes(32)
    ),
    "vqgan": Case("VQGAN decode, batch 4", {"plain": plain_decode, "ours": decode}, 1.2, 1.87),
}
SHARES = {"rdm-large": 0.90, "vit": 0.85}
"""Least share of the bare matrix products' rate."""
