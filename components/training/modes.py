"""What modules do in one pass: which of their parameters take a gradient, and whether they train."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Inside, the module and all below it are in eval mode; afterwards each is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def require_grad_of(groups: Sequence[Sequence[nn.Parameter]], which: int | None) -> None:
    """Freeze the parameters of every other optimizer, by group; None thaws all."""
    if len(groups) > 1:
        for i, parameters in enumerate(groups):
            for parameter in parameters:
                parameter.requires_grad_(which in (None, i))
