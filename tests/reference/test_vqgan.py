"""The published tokenizer: tensors and size. Provenance: LTH14/rcg @ 0c4433c, counted on its own model."""

import hashlib
from pathlib import Path

import pytest
import torch

from components.codecs.config import VitFeatures, VqganConfig
from components.codecs.vqgan import ResBlock
from components.codecs.vqgan_training import VqganTrainable
from components.encoders.config import MoCoV3Config
from components.nn.vit import seeded_init
from components.training.step import Stepper
from components.weights import save_weights
from components.weights_file import WeightsFile
from flows.pipeline.params import load_params
from tests.support.inventory import expected_tensors
from tests.support.toys import worker

PRESETS = Path(__file__).parents[2] / "presets"

PAPER = VqganConfig(
    kind="vqgan",
    px=256,
    width=128,
    multipliers=(1, 1, 2, 2, 4),
    n_blocks=2,
    groups=32,
    n_codes=1024,
    code_dim=256,
    shortcut="branch",
    space="tokens",
)


def test_tensors_of_the_published_tokenizer() -> None:
    with torch.device("meta"):
        vqgan = PAPER.build()
    ours = {name: tuple(value.shape) for name, value in vqgan.state_dict().items()}
    assert ours == expected_tensors("vqgan_tensors.txt")
    assert len(ours) == 168
    assert sum(p.numel() for p in vqgan.parameters()) == 54_515_587
    assert vqgan.spec.shape == (16, 16)


def test_a_block_that_changes_channels_forgets_its_input() -> None:
    """nin(h) + h of the branch h: an input that GroupNorm makes vanish leaves no trace, unlike in a ResNet."""
    shift = 5.0  # removed by the first norm, but not by a shortcut that reads the input
    results = {}
    for shortcut in ("branch", "input"):
        with seeded_init(0):
            block = ResBlock(32, 64, PAPER.model_copy(update={"shortcut": shortcut}))
            x = torch.randn(1, 32, 4, 4)
        with torch.no_grad():
            results[shortcut] = float((block(x + shift) - block(x)).abs().max())
    assert results["branch"] == pytest.approx(0, abs=1e-3)
    assert results["input"] > 1


def test_the_preset_that_trains_it_here(tmp_path: Path) -> None:
    """The published sizes but for the shortcut; other sections those of the table; two steps of both optimizers."""
    params, table = (load_params(PRESETS / f"{name}.yaml") for name in ("vqgan-256", "paper-mage-b"))
    assert params.model_dump(exclude={"codec"}) == table.model_dump(exclude={"codec"})
    assert params.codec.model == PAPER.model_copy(update={"shortcut": "input"})
    objective, run = params.codec.objective, params.codec.train
    assert objective is not None
    assert run is not None
    assert isinstance(objective.perceptual, VitFeatures)
    assert objective.perceptual.weights == getattr(params.encoder.model, "weights", None), "the frozen encoder's file"
    with seeded_init(0):
        encoder = MoCoV3Config.tiny().model_copy(update={"depth": 12}).build().network
    save_weights(tmp_path / "vit.safetensors", encoder.state_dict())
    digest = hashlib.sha256((tmp_path / "vit.safetensors").read_bytes()).hexdigest()
    pin = WeightsFile(uri=str(tmp_path / "vit.safetensors"), sha256=digest)
    perceptual = objective.perceptual.model_copy(update={"weights": pin, "heads": 2})
    adversarial = objective.adversarial and objective.adversarial.model_copy(update={"start_step": 0})
    fast = {"free_steps": 0, "perceptual": perceptual, "adversarial": adversarial}
    small = PAPER.model_copy(update={"px": 64, "width": 32, "n_blocks": 1})
    model = VqganTrainable(small.build(), objective.model_copy(update=fast)).train()
    stepper = Stepper(model, run.model_copy(update={"batch_size": 2}), worker(tmp_path))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    told = [stepper(step, {"images": images}) for step in range(2)]
    assert all(float(scalars[name].detach()) > 0 for scalars in told for name in ("loss_1", "perceptual", "perplexity"))
