"""Training and sampling of the RDM, one plain statement after another."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as tf

from benchmarks.plain.layers import represent
from components.conditions.ports import Ports
from components.encoders.base import FrozenEncoder
from components.generators.diffusion import Diffusion
from components.rng import Rng


class Averaged:
    """Shadow weights by name, updated one by one; swapped in and out around sampling."""

    def __init__(self, module: nn.Module) -> None:
        self.shadow = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.n = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.n += 1
        decay = min(0.9999, (1 + self.n) / (10 + self.n))
        for name, p in module.named_parameters():
            self.shadow[name].sub_((1.0 - decay) * (self.shadow[name] - p))

    @torch.no_grad()
    def swap_in(self, module: nn.Module) -> list[Tensor]:
        kept = [p.clone() for p in module.parameters()]
        for name, p in module.named_parameters():
            p.copy_(self.shadow[name])
        return kept

    @torch.no_grad()
    def swap_out(self, module: nn.Module, kept: list[Tensor]) -> None:
        for p, value in zip(module.parameters(), kept, strict=True):
            p.copy_(value)


class Training:
    """One optimizer step, on images through the encoder or on given representations."""

    def __init__(self, rdm: Diffusion, encoder: FrozenEncoder | None) -> None:
        self.rdm, self.encoder, self.ema = rdm, encoder, Averaged(rdm)
        self.optimizer = torch.optim.AdamW(rdm.parameters(), lr=5.12e-4, weight_decay=0.01)

    def step(self, rows: Tensor) -> float:
        z = rows if self.encoder is None else represent(self.encoder, rows)
        self.ema.update(self.rdm)
        t = torch.randint(0, 1000, (len(z),))
        ab = self.rdm.process.ab[t][:, None]
        x_t = ab.sqrt() * z + (1 - ab).sqrt() * torch.randn_like(z)
        x0 = self.rdm.net(x_t, self.rdm.net.time_vectors(t), Ports())
        loss = tf.mse_loss(x0, z, reduction="none").mean(1).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norms = [p.grad.detach().norm(2) for p in self.rdm.parameters() if p.grad is not None]
        torch.stack(norms).norm(2).item()  # nobody reads it
        self.optimizer.step()
        return float(loss.item())


@torch.no_grad()
def sample(rdm: Diffusion, ema: Averaged, rng: Rng, *, steps: int, eta: float) -> Tensor:
    """DDIM; every step embeds the time of every row and makes its coefficients as tensors."""
    kept = ema.swap_in(rdm)
    betas = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    ab = np.cumprod(1 - betas)
    times = np.arange(0, 1000, 1000 // steps) + 1
    here, before = ab[times], np.append(ab[0], ab[times[:-1]])
    sigmas = eta * np.sqrt((1 - before) / (1 - here) * (1 - here / before))
    x = rng.normal(rdm.data.dim)
    for i in reversed(range(steps)):
        t = torch.full((len(x),), int(times[i]))
        a, a_prev, sigma = (torch.full((len(x), 1), float(values[i])) for values in (here, before, sigmas))
        x0 = rdm.net(x, rdm.net.time_vectors(t), Ports())
        eps = (x / a.sqrt() - x0) / (1 / a - 1).sqrt()
        x = a_prev.sqrt() * x0 + (1 - a_prev - sigma**2).sqrt() * eps + sigma * rng.normal(rdm.data.dim)
    ema.swap_out(rdm, kept)
    return x
