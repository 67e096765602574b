"""A generator without noise: one point for each row of conditions, as a regression gives it.

z: representation, m: rivals.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from components.base import Batch
from components.conditions.container import Conditions
from components.conditions.ports import Ports
from components.diffusion.network import Network
from components.generators.base import Generator, TrainingRows
from components.generators.config import DirectConfig, GeneratorData
from components.generators.sampling import AnySampling, check_sampling
from components.rng import BatchRng, Rng
from components.spacing import evenly_spaced
from components.target import EventSpec

_LEAST = 0.1
"""Norm of a guess, in that of representations, below which its cosines shrink with it."""


class Direct(Generator):
    """z = f(conditions): mean squared error, and a contrastive loss. Paper: 2312.04655 (ECLIPSE).

    `network` is one of diffusion that is always shown zeros at time 0. Buffers: rivals, representations of training
    rows, than which a guess is to be more like its own row.
    Differs: in ECLIPSE the rivals are captions of the batch in CLIP's space, and the network reads noise, too. Here no
    space of texts and pictures is needed, and the loss of a row does not depend on its companions.
    """

    config: DirectConfig
    rivals: Tensor

    def __init__(
        self, config: DirectConfig, data: GeneratorData, *, spec: EventSpec, network: Network, conditions: Conditions
    ) -> None:
        super().__init__(config, data, spec=spec)
        self.net, self.conditioner = network, conditions
        self.register_buffer("rivals", torch.zeros(config.n_rivals, *spec.shape))

    def fit(self, rows: TrainingRows, seed: int, *, trained: bool = False) -> None:
        super().fit(rows, seed, trained=trained)
        if not trained and len(rows):
            some = evenly_spaced(len(rows), len(self.rivals))
            self.rivals.copy_(rows.field(self.makes, np.resize(some, len(self.rivals))))

    def loss(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        z = self.checked(batch).float()
        guess = self._guess(self.conditioner.training_ports(batch, rng), len(z))
        errors = (guess - z).square().mean(1)
        if self.config.contrast == 0:
            return errors
        unit = torch.nn.functional.normalize
        # A network starts at zero, where a cosine's gradient is without bounds and would fill Adam's second moments.
        direction = guess / guess.norm(dim=1, keepdim=True).clamp(min=_LEAST * self.rivals.norm(dim=1).mean())
        own = (direction * unit(z, dim=1)).sum(1, keepdim=True)
        others = direction @ unit(self.rivals, dim=1).T
        logits = torch.cat([own, others], 1) / self.config.temperature  # (b, 1 + m)
        return errors - self.config.contrast * logits.log_softmax(1)[:, 0]

    @torch.no_grad()
    def sample(self, batch: Batch, sampling: AnySampling, rng: Rng) -> Tensor:
        check_sampling(sampling, self.config)
        ports, null = self.conditioner.sampling_ports(batch, rng)
        guess = self._guess(ports, rng.rows)
        if sampling.guidance > 0:
            guess = guess + sampling.guidance * (guess - self._guess(null, rng.rows))
        return guess.to(getattr(torch, self.spec.dtype))

    def _guess(self, ports: Ports, n: int) -> Float[Tensor, "n dim"]:
        nothing = self.rivals.new_zeros(n, *self.spec.shape)
        time = self.net.time_vectors(torch.zeros(1, dtype=torch.int64, device=nothing.device))
        out: Tensor = self.net(nothing, time, ports)
        return out
