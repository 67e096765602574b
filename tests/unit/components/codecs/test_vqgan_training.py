from pathlib import Path

import numpy as np
import pytest
import torch

from components.base import Batch
from components.codecs.config import VqganConfig, VqganObjective
from components.codecs.vqgan_training import VqganTrainable, perplexity
from components.nn.vit import seeded_init
from components.rng import BatchRng
from components.training.config import TrainConfig
from components.training.loop import train
from tests.support.ranks import run_ranks
from tests.support.toys import worker

N = 6


def trainable(**objective: float) -> VqganTrainable:
    with seeded_init(0):
        vqgan = VqganConfig.tiny().build()
    return VqganTrainable(vqgan, VqganObjective.tiny().model_copy(update={"free_steps": 0, **objective})).train()


def images(n: int = N) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def test_loss_is_the_weighted_sum_of_its_parts() -> None:
    model = trainable(l1=2.0, l2=3.0, commitment=0.5).eval()
    loss, parts = model({"images": images()}, BatchRng(0, N))
    with torch.no_grad():
        z_e = model.vqgan.encoder(images())
        z_q = model.vqgan.quantize(model.vqgan.quantize.nearest(z_e))
        error = model.vqgan.decoder(z_q) - images()
    l1, l2, commitment = error.abs().mean(), error.square().mean(), (z_e - z_q).square().mean()
    torch.testing.assert_close(loss.detach(), 2 * l1 + 3 * l2 + 0.5 * commitment)
    torch.testing.assert_close(parts["l2"], l2)


def test_the_gradient_goes_straight_through_the_codebook() -> None:
    model = trainable(l1=0.0, l2=1.0, commitment=0.5).eval()
    model({"images": images()}, BatchRng(0, N))[0].backward()
    z_e = model.vqgan.encoder(images())
    z_q = model.vqgan.quantize(model.vqgan.quantize.nearest(z_e.detach())).detach().requires_grad_()
    l2 = (model.vqgan.decoder(z_q) - images()).square().mean()
    (at_z_q,) = torch.autograd.grad(l2, z_q)
    at_z_e = at_z_q + 0.5 * 2 * (z_e - z_q).detach() / z_e.numel()
    weights = list(model.vqgan.encoder.parameters())
    for p, expected in zip(weights, torch.autograd.grad(z_e, weights, at_z_e), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, expected, rtol=1e-3, atol=1e-6)


def test_every_trained_parameter_gets_a_gradient_and_the_codebook_none() -> None:
    model = trainable()
    model({"images": images()}, BatchRng(0, N))[0].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == ["vqgan.quantize.embedding.weight"]
    assert "vqgan.quantize.embedding.weight" not in dict(model.optimizer_parameters()[0])


def test_the_first_batch_fills_the_codebook_with_encoder_outputs() -> None:
    model = trainable(codebook_decay=0.999999)
    with torch.no_grad():
        outputs = model.vqgan.encoder(images()).permute(0, 2, 3, 1).reshape(-1, 4)
    model({"images": images()}, BatchRng(0, N))
    distance = (model.vqgan.quantize.embedding.weight[:, None] - outputs).norm(dim=2).amin(1)
    assert float(distance.max()) < 1e-5


def test_the_codebook_is_the_moving_average_of_what_chose_it() -> None:
    model = trainable(codebook_decay=0.75, restart_below=0.0)
    model({"images": images()}, BatchRng(0, N))
    use, total, codes = model.use.clone(), model.total.clone(), model.vqgan.quantize.embedding.weight.clone()
    with torch.no_grad():
        z_e = model.vqgan.encoder(images()).permute(0, 2, 3, 1).reshape(-1, 4)
    owner = torch.cdist(z_e, codes).argmin(1)
    model({"images": images()}, BatchRng(1, N))
    for k in range(8):
        chosen = z_e[owner == k]
        n, mass = 0.75 * use[k] + 0.25 * len(chosen), 0.75 * total[k] + 0.25 * chosen.sum(0)
        torch.testing.assert_close(model.use[k], n)
        torch.testing.assert_close(model.vqgan.quantize.embedding.weight[k], mass / n, rtol=1e-4, atol=1e-5)


def test_an_unused_code_comes_back() -> None:
    model = trainable(codebook_decay=0.5, restart_below=0.3)
    model({"images": images()}, BatchRng(0, N))
    with torch.no_grad():
        model.vqgan.quantize.embedding.weight[3] = 1e3
        model.total[3], model.use[3] = 1e3 * model.use[3], 0.29 * N * 16 / 8
    model({"images": images()}, BatchRng(1, N))
    assert float(model.vqgan.quantize.embedding.weight[3].abs().max()) < 100


def test_the_start_leaves_out_the_codebook() -> None:
    model = trainable(free_steps=2)
    with torch.no_grad():
        free = (model.vqgan.decoder(model.vqgan.encoder(images())) - images()).square().mean()
    for step in (1, 2):
        loss, parts = model({"images": images()}, BatchRng(step, N))
        torch.testing.assert_close(parts["l2"], free)
        torch.testing.assert_close(loss.detach(), parts["l1"] + parts["l2"])
        assert not bool(model.use.any()), "so that the first step with a codebook fills it"
        model.after_step(step, 9)
    loss, parts = model({"images": images()}, BatchRng(3, N))
    torch.testing.assert_close(loss.detach(), parts["l1"] + parts["l2"] + 0.25 * parts["commitment"])
    assert not torch.allclose(parts["l2"], free)
    assert bool(model.use.all())


def test_evaluation_changes_nothing() -> None:
    model = trainable()
    model({"images": images()}, BatchRng(0, N))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = model.eval()({"images": images()}, BatchRng(1, N))[0]
    assert torch.equal(first, model({"images": images()}, BatchRng(2, N))[0])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def _two_steps(rank: int, n_ranks: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], float]:
    """State and gradients after two steps, the gradients averaged over ranks as DDP does."""
    from torch import distributed

    model, loss = trainable(), torch.zeros(())
    rows = slice(N * rank // n_ranks, N * (rank + 1) // n_ranks)
    for seed in (0, 1):
        model.zero_grad()
        rng = BatchRng(seed, N, start=rows.start, stop=rows.stop)
        loss, _ = model({"images": images()[rows]}, rng)
        loss.backward()
    grads = {name: p.grad / n_ranks for name, p in model.named_parameters() if p.grad is not None}
    mean = loss.detach() / n_ranks
    if n_ranks > 1:
        for value in (*grads.values(), mean):
            distributed.all_reduce(value)
    return model.state_dict(), grads, float(mean)


@pytest.mark.processes
def test_two_ranks_agree_with_one() -> None:
    (state, grads, loss), (other_state, other_grads, other_loss) = _two_steps(0, 1), run_ranks(2, _two_steps)[1]
    assert loss == pytest.approx(other_loss, rel=1e-5)
    for name in state:
        torch.testing.assert_close(other_state[name], state[name], rtol=1e-5, atol=1e-5)
    for name in grads:
        torch.testing.assert_close(other_grads[name], grads[name], rtol=1e-4, atol=1e-5)


def test_training_reconstructs_better(tmp_path: Path) -> None:
    def fetch(indices: np.ndarray, rng: BatchRng) -> Batch:
        shade = torch.linspace(0, 1, 16)[indices]
        return {"images": shade.view(-1, 1, 1, 1).expand(-1, 3, 8, 8)}

    config = TrainConfig.tiny().model_copy(
        update={"steps": 150, "batch_size": 8, "log_every": 15, "schedule": "cosine"}
    )
    faster = config.optimizer.model_copy(update={"lr": 1e-2})
    config = config.model_copy(update={"optimizer": faster})
    curve = train(trainable(), fetch, 16, config, worker(tmp_path)).curve
    assert curve[-1]["l2"] < 0.25 * curve[0]["l2"]
    assert {"perplexity", "codes_used", "l1", "commitment"} <= curve[-1].keys()


def test_perplexity_counts_equal_codes() -> None:
    assert float(perplexity(torch.tensor([5.0, 5.0, 0.0, 5.0, 5.0]))) == pytest.approx(4.0)
    assert float(perplexity(torch.tensor([0.0, 9.0]))) == pytest.approx(1.0)
    assert float(perplexity(torch.zeros(3))) == pytest.approx(1.0)
