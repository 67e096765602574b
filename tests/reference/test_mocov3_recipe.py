"""MoCo v3's official recipe for ViTs, as the presets have it.

Provenance: facebookresearch/moco-v3, main_moco.py and CONFIG.md (ViT, 300 epochs, batch 4096).
"""

from pathlib import Path

import pytest
import torch

from components.encoders.config import ContrastiveConfig, MoCoV3Config
from components.encoders.contrastive import MoCoV3Trainer, momentum_at
from components.encoders.mocov3 import MoCoV3Network
from components.nn.batchnorm import GlobalBatchNorm
from components.training.optim import decays, lr_at
from components.training.step import Stepper
from flows.pipeline.params import load_params
from tests.support.toys import worker

PRESETS = Path(__file__).parents[2] / "presets"
BACKBONE = {"s": 21_665_664, "b": 85_798_656}


@pytest.mark.parametrize("size", ["s", "b"])
def test_the_recipe(size: str) -> None:
    params = load_params(PRESETS / f"pretrain-vit-{size}.yaml")
    train, method, model = params.encoder.train, params.encoder.contrastive, params.encoder.model
    assert train is not None
    assert method is not None
    assert isinstance(model, MoCoV3Config)
    assert train.batch_size == 4096
    assert train.optimizer.lr == pytest.approx(1.5e-4 * 4096 / 256)
    assert (train.optimizer.betas, train.optimizer.weight_decay) == ((0.9, 0.999), 0.1)
    assert decays("norm.bias", torch.zeros(3), train.optimizer), "biases and norms too"
    per_epoch = 1_281_167 / 4096
    assert (train.steps / per_epoch, train.warmup_steps / per_epoch) == pytest.approx((300, 40), abs=0.01)
    assert lr_at(train, train.warmup_steps) == pytest.approx(train.optimizer.lr)
    assert lr_at(train, train.steps - 1) < 1e-6 * train.optimizer.lr
    assert (method.temperature, method.momentum, method.predictor_hidden) == (0.2, 0.99, 4096)
    assert momentum_at(method.momentum, train.steps, train.steps) == 1
    assert (model.input_px, model.patch_px, model.heads, model.freeze_patches) == (224, 16, 12, True)
    kinds = [[step.kind for step in view] for view in method.views]
    assert kinds == [
        ["crop", "color_jitter", "grayscale", "blur", "flip"],
        ["crop", "color_jitter", "grayscale", "blur", "solarize", "flip"],
    ]
    assert [view[3].prob for view in method.views] == [1.0, 0.1]  # type: ignore[union-attr]


@pytest.mark.parametrize("size", ["s", "b"])
def test_the_sizes(size: str) -> None:
    model = load_params(PRESETS / f"pretrain-vit-{size}.yaml").encoder.model
    assert isinstance(model, MoCoV3Config)
    with torch.device("meta"):
        network = MoCoV3Network(model)
    head = sum(p.numel() for p in network.head.parameters())
    assert sum(p.numel() for p in network.parameters()) - head == BACKBONE[size]
    assert head == model.width * 4096 + 4096 * 4096 + 4096 * 256 + 4 * 4096
    norms = [m for m in network.head.modules() if isinstance(m, GlobalBatchNorm)]
    assert [norm.affine for norm in norms] == [True, True, False]


@pytest.mark.parametrize("size", ["s", "b"])
def test_other_sections_are_those_of_the_table(size: str) -> None:
    ours, table = (load_params(PRESETS / f"{name}.yaml") for name in (f"pretrain-vit-{size}", "paper-mage-b"))
    assert ours.model_dump(exclude={"encoder"}) == table.model_dump(exclude={"encoder"})


def test_two_optimizer_steps_at_reduced_depth(tmp_path: Path) -> None:
    params = load_params(PRESETS / "pretrain-vit-s.yaml").encoder
    assert isinstance(params.model, MoCoV3Config)
    assert isinstance(params.contrastive, ContrastiveConfig)
    assert params.train is not None
    small = params.model.model_copy(update={"depth": 1, "projector_hidden": 32})
    trainer = MoCoV3Trainer(small, params.contrastive.model_copy(update={"predictor_hidden": 32})).train()
    patches = trainer.base_encoder.patch_embed.proj.weight.clone()
    stepper = Stepper(trainer, params.train.model_copy(update={"batch_size": 2}), worker(tmp_path))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    losses = [float(stepper(step, {"target": images})["loss"].detach()) for step in range(2)]
    assert all(0 < loss < 10 for loss in losses)
    assert torch.equal(patches, trainer.base_encoder.patch_embed.proj.weight), "the patch projection is frozen"
