"""Optimizers and learning rates: decay groups, and schedules that are pure functions of the step.

The first optimizer of a process takes about a second: torch.optim imports torch's compiler.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.training.config import OptimConfig, TrainConfig
from components.training.distributed import whole

Named = Sequence[tuple[str, nn.Parameter]]


def lr_at(config: TrainConfig, step: int) -> float:
    """Learning rate of step 0 <= step < steps, without state."""
    lr = config.optimizer.lr
    if step < config.warmup_steps:
        return lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return lr
    done = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    return lr * (1.0 - done if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done)))


def decays(name: str, parameter: Tensor, config: OptimConfig) -> bool:
    """Does weight decay apply to this parameter?"""
    return config.decay == "all" or (parameter.ndim >= 2 and not name.endswith("bias"))


def adamw(named: Named, config: OptimConfig) -> torch.optim.AdamW:
    """torch's, on fused kernels; set_lr() comes before each step.

    A parameter without a gradient stays, as do its moments.
    """
    groups = [
        {
            "params": [(name, p) for name, p in named if decays(name, p, config) == decay],
            "weight_decay": config.weight_decay if decay else 0.0,
        }
        for decay in (True, False)
    ]
    filled = [group for group in groups if group["params"]]
    return torch.optim.AdamW(filled, lr=config.lr, betas=config.betas, eps=1e-8, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of the next step, of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All that it moves."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float | None) -> Tensor | None:
    """Scale gradients to an L2 norm of at most max_norm; returns the norm before, on its device. No-op for None."""
    if max_norm is None:
        return None
    norm = total_norm([p.grad for p in parameters if p.grad is not None])
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm, foreach=True)
    return norm


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norm of all of them together, also of such that are split over ranks. Collective for those."""
    return whole(nn.utils.get_total_norm(tensors, foreach=True))
