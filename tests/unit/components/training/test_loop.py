import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from components.base import Batch
from components.errors import ConfigError, DivergedError, RcgError, RetryableError
from components.rng import BatchRng, derive_seed
from components.store.local import LocalStore
from components.training.checkpoint import CheckpointDir, Latest, NoCheckpoints
from components.training.config import EmaConfig, TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.loop import Preview, Trainable, TrainResult, train
from components.training.optim import lr_at
from components.training.order import global_indices, noise_rng
from components.training.report import Report
from components.training.worker import Worker
from tests.support import toys

CONFIG = TrainConfig.model_validate(
    TrainConfig.tiny().model_dump()
    | {"steps": 13, "batch_size": 5, "warmup_steps": 3, "schedule": "cosine", "clip_norm": 0.5, "log_every": 4}
)


def trainable() -> GeneratorTrainable[toys.ToyGenerator]:
    return GeneratorTrainable(toys.ToyGenerator(), EmaConfig(decay=0.9, rule="ramped"))


def fit(worker: Worker, config: TrainConfig = CONFIG, preview: Preview | None = None) -> tuple[Trainable, TrainResult]:
    model = trainable()
    return model, train(model, toys.fetch, toys.N_EXAMPLES, config, worker, preview=preview)


def bits(module: nn.Module) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in module.state_dict().values()]


def directory(tmp_path: Path, attempt: int = 1, rank: int = 0, world_size: int = 1) -> CheckpointDir:
    store = LocalStore(tmp_path / "store")
    return CheckpointDir(store, "runs/rdm/f", attempt, 3, tmp_path, rank=rank, world_size=world_size)


def newest(tmp_path: Path) -> int | None:
    """Step of the newest checkpoint."""
    key = "runs/rdm/f/checkpoints/latest.json"
    store = LocalStore(tmp_path / "store")
    return None if store.head(key) is None else Latest.model_validate_json(store.get(key)).kept[0].step


def test_the_loop_is_adamw_with_clipping_schedule_and_ema_by_hand(tmp_path: Path) -> None:
    model, result = fit(toys.worker(tmp_path))
    oracle, averaged = toys.ToyGenerator(), toys.ToyGenerator()
    weights = list(oracle.parameters())
    optimizer = toys.AdamWByHand(weights, (0.9, 0.99), [0.01 if p.ndim == 2 else 0.0 for p in weights])
    losses = []
    for step in range(13):
        batch = toys.fetch(global_indices(0, step, 5, toys.N_EXAMPLES), BatchRng(derive_seed(0, "fetch", step), 5))
        loss = oracle.loss(batch, noise_rng(CONFIG, toys.worker(tmp_path), step, 0)).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(oracle.parameters(), 0.5)
        optimizer.step(lr_at(CONFIG, step))
        losses.append(loss.item())
        decay = min(0.9, (2 + step) / (11 + step))
        with torch.no_grad():
            for slow, fast in zip(averaged.parameters(), oracle.parameters(), strict=True):
                slow.copy_(decay * slow + (1 - decay) * fast)
    for mine, theirs in zip(model.generator.parameters(), oracle.parameters(), strict=True):  # type: ignore[union-attr]
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)
    for mine, theirs in zip(model.result.parameters(), averaged.parameters(), strict=True):  # type: ignore[union-attr]
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)
    assert [r["step"] for r in result.curve] == [4, 8, 12, 13]
    means = [sum(losses[a:b]) / (b - a) for a, b in ((0, 4), (4, 8), (8, 12), (12, 13))]
    assert [r["loss"] for r in result.curve] == pytest.approx(means, rel=1e-5)
    assert result.curve[1].keys() == {"step", "loss", "grad_norm", "lr"}


def test_it_learns(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": 300, "log_every": 50, "clip_norm": None})
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"lr": 1e-2})})
    curve = fit(toys.worker(tmp_path), config)[1].curve
    assert curve[-1]["loss"] < 0.6 * curve[0]["loss"]


class KilledError(Exception):
    pass


def killer(at: int) -> Preview:
    def draw(step: int) -> Mapping[str, np.ndarray]:
        if step == at:
            raise KilledError
        return {}

    return Preview(1, draw)


@pytest.mark.parametrize("kill_at", range(1, 13))
def test_killed_and_resumed_has_the_bits_of_uninterrupted(tmp_path: Path, kill_at: int) -> None:
    expected, curve = fit(toys.worker(tmp_path))
    with pytest.raises(KilledError):
        fit(toys.worker(tmp_path, checkpoints=directory(tmp_path), checkpoint_every=3), preview=killer(kill_at))
    resumed, again = fit(toys.worker(tmp_path, checkpoints=directory(tmp_path, attempt=2), checkpoint_every=5))
    assert bits(resumed) == bits(expected)
    assert again == curve


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    expected, curve = fit(toys.worker(tmp_path, checkpoints=directory(tmp_path)))
    reports: list[Report] = []
    model, again = fit(toys.worker(tmp_path, checkpoints=directory(tmp_path), report=reports.append))
    assert (bits(model), again, reports) == (bits(expected), curve, [])


def test_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    fit(toys.worker(tmp_path, checkpoints=directory(tmp_path)))
    with pytest.raises(RcgError, match="another training"):
        fit(toys.worker(tmp_path, checkpoints=directory(tmp_path)), CONFIG.model_copy(update={"seed": 1}))


def test_previews_are_reported_and_move_no_bits(tmp_path: Path) -> None:
    seen: list[bool] = []
    model = trainable()

    def draw(step: int) -> Mapping[str, np.ndarray]:
        seen.append(model.generator.training or torch.is_grad_enabled())
        return {"grid": np.full((2, 2, 3), step, np.uint8)}

    model.generator.inner.eval()  # the loop sets train mode once; a preview restores each module's own mode
    reports: list[Report] = []
    preview = Preview(5, draw)
    train(model, toys.fetch, toys.N_EXAMPLES, CONFIG, toys.worker(tmp_path, report=reports.append), preview=preview)
    assert bits(model) == bits(fit(toys.worker(tmp_path))[0])
    assert seen == [False] * 3
    assert {r.step: int(r.images["grid"][0, 0, 0]) for r in reports if r.images} == {5: 5, 10: 10, 13: 13}
    assert [r.step for r in reports if r.metrics] == [4, 8, 12, 13]
    assert model.training


@pytest.mark.parametrize("checkpoint_every", [1, 1000])
def test_divergence_names_the_step_and_keeps_a_good_checkpoint(tmp_path: Path, checkpoint_every: int) -> None:
    def poisoned(indices: np.ndarray, rng: BatchRng) -> Batch:
        batch = toys.fetch(indices, rng)
        bad = indices.tolist() == global_indices(0, 5, 5, toys.N_EXAMPLES).tolist()
        return {"representation": batch["representation"] * float("nan")} if bad else batch

    store = directory(tmp_path)
    with pytest.raises(DivergedError, match="step 6") as caught:
        train(
            trainable(),
            poisoned,
            toys.N_EXAMPLES,
            CONFIG,
            toys.worker(tmp_path, checkpoints=store, checkpoint_every=checkpoint_every),
        )
    loaded = newest(tmp_path)
    if checkpoint_every == 1:
        assert "last good checkpoint is of step 5" in str(caught.value)
        assert loaded == 5
    else:
        assert "there is no checkpoint" in str(caught.value)
        assert loaded is None


def test_weights_that_overflow_after_a_finite_loss_are_never_saved(tmp_path: Path) -> None:
    class Overflowing(GeneratorTrainable[toys.ToyGenerator]):
        def after_step(self, step: int, n_steps: int) -> None:  # noqa: ARG002
            if step == 3:
                self.generator.inner.weight.data[0, 0] = float("inf")

    model = Overflowing(toys.ToyGenerator(), None)
    worker = toys.worker(tmp_path, checkpoints=directory(tmp_path), checkpoint_every=3)
    with pytest.raises(DivergedError, match="weights"):
        train(model, toys.fetch, toys.N_EXAMPLES, CONFIG, worker)
    assert newest(tmp_path) is None


def test_told_to_stop_it_saves_and_goes_on_later(tmp_path: Path) -> None:
    expected = fit(toys.worker(tmp_path))[0]
    calls = itertools.count(1)
    worker = toys.worker(tmp_path, checkpoints=directory(tmp_path), stopping=lambda: next(calls) == 6)
    with pytest.raises(RetryableError, match="step 6"):
        fit(worker)
    assert newest(tmp_path) == 6
    assert bits(fit(toys.worker(tmp_path, checkpoints=directory(tmp_path)))[0]) == bits(expected)


def test_more_workers_than_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size is 5 but there are 6 workers"):
        fit(toys.worker(tmp_path, world_size=6))


class Duel(Trainable):
    """Two players, each trained on a loss that also reads the other's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([2.0]))

    def optimizer_parameters(self) -> list[list[tuple[str, nn.Parameter]]]:
        return [[("one", self.one)], [("two", self.two)]]

    def forward(self, batch: Batch, rng: BatchRng, which: int = 0) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        assert (self.one.requires_grad, self.two.requires_grad) == (which == 0, which == 1)
        product = (self.one * self.two * batch["representation"].square()).mean()
        return (product if which == 0 else -product), {f"product_{which}": product.detach()}


def duel(rank: int, world_size: int, folder: Path) -> tuple[list[float], list[dict[str, float]]]:
    model = Duel()
    worker = toys.worker(folder, rank=rank, world_size=world_size)
    result = train(model, toys.fetch, toys.N_EXAMPLES, CONFIG, worker)
    return [model.one.item(), model.two.item()], result.curve


def test_each_optimizer_moves_its_own_parameters(tmp_path: Path) -> None:
    (one, two), curve = duel(0, 1, tmp_path)
    assert one < 1.0
    assert two > 2.0
    assert curve[0].keys() == {"step", "loss", "loss_1", "product_0", "product_1", "grad_norm", "grad_norm_1", "lr"}


def test_a_cpu_computes_in_fp32_whatever_the_precision(tmp_path: Path) -> None:
    _, asked = fit(toys.worker(tmp_path), CONFIG.model_copy(update={"precision": "bf16"}))
    assert asked.curve == fit(toys.worker(tmp_path))[1].curve


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.processes
def test_compiled_kernels_compute_the_same_but_for_rounding(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": 3})
    plain, expected = fit(toys.worker(tmp_path), config)
    model, result = fit(dataclasses.replace(toys.worker(tmp_path), compiled=True), config)
    assert result.curve[-1]["loss"] == pytest.approx(expected.curve[-1]["loss"], rel=1e-4)
    assert model.state_dict().keys() == plain.state_dict().keys()


def ranks_train(rank: int, world_size: int, folder: Path) -> dict[str, object]:
    """What is compared between one and two ranks."""
    model, result = fit(toys.worker(folder, rank=rank, world_size=world_size))
    store = directory(folder, 1, rank, world_size)
    stopping = toys.worker(
        folder, rank=rank, world_size=world_size, checkpoints=store, stopping=lambda: rank == world_size - 1
    )
    try:
        fit(stopping)
        stopped = "no"
    except RetryableError as error:
        stopped = error.what
    second, again = fit(dataclasses.replace(stopping, stopping=lambda: False))
    return {
        "weights": [p.detach().clone() for p in model.parameters()],
        "curve": result.curve,
        "stopped": stopped,
        "resumed": bits(second) == bits(model),
        "resumed_curve": again.curve,
        "duel": duel(rank, world_size, folder),
        "resumed_elsewhere": _resumed_from(folder / "other", rank, world_size, model),
        "diverged": _diverges_on_the_last_rank(rank, world_size, folder),
    }


def _resumed_from(folder: Path, rank: int, world_size: int, uninterrupted: Trainable) -> float | None:
    """Train on from what another number of ranks left there: how far the weights are from these ones."""
    if not folder.exists():
        return None
    worker = toys.worker(folder, rank=rank, world_size=world_size, checkpoints=directory(folder, 2, rank, world_size))
    reports: list[Report] = []
    model, _ = fit(dataclasses.replace(worker, report=reports.append))
    assert [report.step for report in reports if report.metrics] == [12, 13], "it began anew"
    pairs = zip(model.parameters(), uninterrupted.parameters(), strict=True)
    return max(float((mine - theirs).abs().max().detach()) for mine, theirs in pairs)


def _stop_at_8(rank: int, world_size: int, folder: Path) -> None:
    """Leave a checkpoint of step 8 there."""
    calls = itertools.count(1)
    store = directory(folder, 1, rank, world_size)
    every = 8 if world_size == 1 else 1  # several ranks ask each other at every 8th step
    worker = toys.worker(
        folder, rank=rank, world_size=world_size, checkpoints=store, stopping=lambda: next(calls) == every
    )
    with pytest.raises(RetryableError, match="step 8"):
        fit(worker)


def _diverges_on_the_last_rank(rank: int, world_size: int, folder: Path) -> str:
    def poisoned(indices: np.ndarray, rng: BatchRng) -> Batch:
        scale = float("nan") if rank == world_size - 1 and 7 in indices else 1.0
        return {"representation": toys.fetch(indices, rng)["representation"] * scale}

    worker = toys.worker(folder, rank=rank, world_size=world_size)
    try:
        train(trainable(), poisoned, toys.N_EXAMPLES, CONFIG, dataclasses.replace(worker, checkpoints=NoCheckpoints()))
    except DivergedError as error:
        return str(error)
    return "no"


@pytest.mark.processes
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    from tests.support.ranks import run_ranks

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one/other").mkdir()
    (tmp_path / "two/other").mkdir()
    _stop_at_8(0, 1, tmp_path / "two/other")
    run_ranks(2, _stop_at_8, tmp_path / "one/other")
    assert len(list((tmp_path / "one/other").rglob("*.safetensors"))) == 2, "each rank saves a share"
    alone = ranks_train(0, 1, tmp_path / "one")
    first, second = run_ranks(2, ranks_train, tmp_path / "two")
    for mine, theirs in zip(first["weights"], alone["weights"], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    for mine, theirs in zip(first["weights"], second["weights"], strict=True):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(first["curve"], alone["curve"], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    assert first["stopped"] == second["stopped"] == "told to stop: saved a checkpoint of step 8"
    assert first["resumed"]
    assert second["resumed"]
    assert first["resumed_curve"] == first["curve"]
    assert first["resumed_elsewhere"] == second["resumed_elsewhere"] < 1e-5
    assert alone["resumed_elsewhere"] < 1e-5
    assert first["duel"][0] == pytest.approx(alone["duel"][0], abs=1e-5)
    assert first["duel"][0] == second["duel"][0]
    assert "training diverged" in first["diverged"]
    assert first["diverged"] == second["diverged"]
