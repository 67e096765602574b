"""Rows through a network in parts, where what comes behind needs all of them together."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_parts(network: Callable[[Tensor], Tensor], x: Tensor, most: int | None) -> Tensor:
    """network(x), at most `most` rows at a time; activations of one part are in memory, and computed again for the
    gradient.

    The same function of x for a network that treats each row by itself. Shapes: (n, ...) -> (n, ...). Paper:
    2101.06983 (GradCache), section 3, which the chain rule gives by itself here.
    """
    if most is None or len(x) <= most:
        return network(x)
    parts = [x[start : start + most] for start in range(0, len(x), most)]
    if not torch.is_grad_enabled():
        return torch.cat([network(part) for part in parts])
    # No global random state to restore: networks sample from the Rng that they are given.
    return torch.cat([checkpoint(network, part, use_reentrant=False, preserve_rng_state=False) for part in parts])
