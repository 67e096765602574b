"""How near the states of a sampler's chain are to what they become. z_t: state at time t, z_0: representation."""

from typing import NamedTuple, cast

import numpy as np
from torch import Tensor
from torch.nn.functional import cosine_similarity

from components.base import Batch, Metrics
from components.generators.diffusion import Diffusion
from components.generators.sampling import DiffusionSampling
from components.rng import image_rng
from flows.stages.rdm.params import CheckConfig


class Chain(NamedTuple):
    """Mean cosine(z_t, z_0) before each step and after the last one, whose time is -1.

    `own`: z_0 is where the row's chain ends; `real`: the representation of the picture that its conditions are of, and
    `unrelated`: of another picture; None without a condition. Paper: 2211.15388, of the state, not of the prediction.
    """

    times: list[int]
    own: list[float]
    real: list[float] | None
    unrelated: list[float] | None

    @property
    def metrics(self) -> Metrics:
        found = {"chain_cosine_start": self.own[0]}
        if self.real is not None and self.unrelated is not None:
            found |= {"chain_cosine_start_real": self.real[0], "chain_cosine_real": self.real[-1]}
            found |= {"chain_cosine_unrelated": self.unrelated[-1]}
        return found

    @property
    def series(self) -> dict[str, list[float]]:
        """Of what is known, by name."""
        both = {"own end": self.own, "real": self.real, "unrelated": self.unrelated}
        return {name: values for name, values in both.items() if values is not None}


def chain(rdm: Diffusion, check: CheckConfig, seed: int, given: Batch, real: Tensor) -> Chain:
    """Of the examination's first draws. `given`: fields of the pictures that `real` is of.

    Shapes: real (m, dim); rows beyond m begin again with the first.
    """
    n, options, device = min(check.n, check.batch_size), cast(DiffusionSampling, check.sampling), rdm.mean.device
    rows, states = np.arange(n) % len(real), list[Tensor]()
    rng = image_rng(seed, 0, n, stream="check", device=device)
    batch = {name: values[rows].to(device) for name, values in given.items()}
    watch = rdm.net.register_forward_pre_hook(lambda _, args: states.append(args[0][:n]))  # nulls come after them
    try:
        states.append(rdm.sample(batch, options, rng))
    finally:
        watch.remove()

    def cosines(z_0: Tensor) -> list[float]:
        return [float(cosine_similarity(z_t, z_0.to(device), dim=1).mean()) for z_t in states]

    steps = rdm.process.steps(options.steps, options.spacing, options.sections)
    own, (its, others) = cosines(states[-1]), (cosines(real[(rows + i) % len(real)]) for i in (0, 1))
    return Chain([*(step.t for step in steps), -1], own, *((its, others) if given else (None, None)))
