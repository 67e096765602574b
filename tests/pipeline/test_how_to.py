"""docs/how-to/compare-with-the-reference.md is run, block by block, on small random reference files."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from components.codecs.config import KlConfig, VqganConfig
from components.encoders.config import MoCoV3Config
from components.generators.config import GeneratorData
from components.interop.checkpoint import export_tensors, write_checkpoint
from components.pixels.adm import AdmConfig
from components.pixels.dit import DitConfig
from components.pixels.ldm import LdmConfig
from components.pixels.mage import MageConfig
from components.rdm import RdmConfig
from components.target import TargetSpec
from tests.reference.test_checkpoints import PUBLISHED
from tests.support.folders import randomize
from tests.support.generators import build_rdm

PAGE = Path(__file__).parents[2] / "docs/how-to/compare-with-the-reference.md"
DIM = 8
VQGAN = VqganConfig(
    kind="vqgan",
    px=256,
    width=32,
    multipliers=(1, 1, 1, 1, 1),
    n_blocks=1,
    groups=32,
    n_codes=1024,
    code_dim=8,
    shortcut="branch",
    space="tokens",
)
KL = KlConfig.tiny().model_copy(
    update={"px": 256, "width": 32, "multipliers": (1, 1, 1, 1), "groups": 32, "latent_dim": 4}
)
PIXELS = TargetSpec(space="pixels", shape=(3, 256, 256), dtype="uint8", n_codes=None, image_px=256)


def _generator(config: Any, target: TargetSpec) -> Callable[[], nn.Module]:
    return lambda: config.build(GeneratorData(target=target, dim=DIM, classes=None))


def _unet(config: type[AdmConfig] | type[LdmConfig], kind: str, **sizes: Any) -> Any:
    return config.model_validate(PUBLISHED[kind] | sizes)


FILES: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "vit-b-300ep.pth.tar": (
        "mocov3",
        lambda: MoCoV3Config.tiny().model_copy(update={"width": 64, "heads": 1, "projector_dim": DIM}).build().network,
    ),
    "vqgan_jax_strongaug.ckpt": ("vqgan", VQGAN.build),
    "sd-vae-ft-ema.safetensors": ("kl", KL.build),
    "rdm.pth": (
        "rdm",
        lambda: build_rdm(
            RdmConfig.model_validate(
                RdmConfig.tiny().model_dump() | {"dim": DIM, "schedule": {"kind": "sqrt_linear", "n_times": 1000}}
            ),
            None,
        ),
    ),
    "mage-b.pth": (
        "mage",
        _generator(
            MageConfig.tiny().model_copy(update={"width": 64, "heads": 1, "decoder_heads": 1}), VQGAN.build().spec
        ),
    ),
    "dit-xl-2.pth": (
        "dit",
        _generator(
            DitConfig.tiny().model_copy(update={"width": 64, "heads": 1, "variance": "learned", "prediction": "eps"}),
            KL.build().spec,
        ),
    ),
    "adm.pth": ("adm", _generator(_unet(AdmConfig, "adm", width=64, multipliers=[1] * 6), PIXELS)),
    "ldm.pth": (
        "ldm",
        _generator(_unet(LdmConfig, "ldm", width=32, multipliers=[1] * 3, context_dim=DIM), KL.build().spec),
    ),
}


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    for name, (kind, build) in FILES.items():
        module = build()
        randomize(module)
        write_checkpoint(tmp_path / "weights" / name, kind, export_tensors(kind, module))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
    assert names["z"].shape == (2, DIM)
    assert names["logits"].shape == (2, 256, 1024)
    assert names["drawn"].shape == (2, DIM)
    assert names["out"].shape == (2, 4, 32, 32)
    assert not names["noise"].draws, "one draw per step and one for the start"
