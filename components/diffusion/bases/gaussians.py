"""Shifted diffusion: the forward process ends in one of k Gaussians near the data. Paper: 2211.15388 (Corgi).

z: row, c: its component, mu_c, sigma_c: mean and deviation, S_c = kappa diag(sigma_c).
q(z_t | z_0) = N(sqrt(ab) z_0 + (1 - sqrt(ab)) mu_c, (1 - ab) S_c^2), which is ordinary diffusion of S_c^-1 (z - mu_c).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from components.base import Batch
from components.diffusion.bases.choice import choice_of
from components.diffusion.bases.config import GaussiansConfig
from components.diffusion.bases.moments import moments, nearest
from components.diffusion.process import BaseDistribution, Frame
from components.fields import FieldSpec
from components.rng import Rng

_LEARNING_SCALE = 0.01
"""Parameters are means and log deviations over this: Adam moves them a hundredth as fast as the network."""
_N_PULLS = 16


class Gaussians(BaseDistribution):
    """k Gaussians. One is chosen for a row once, and stays its own along the chain.

    Before fit() all are N(0, I). Buffers: centroids and spread, as fitted; weights and tables of the choice.
    Differs: Corgi's code chooses anew in every step of sampling, and leaves means and deviations out of its file.
    Raises: ConfigError for a choice by a field that does not suit.
    """

    centroids: Tensor
    spread: Tensor
    spherical: Tensor

    def __init__(self, config: GaussiansConfig, *, dim: int, fields: Sequence[FieldSpec]) -> None:
        super().__init__()
        self.k, self.kappa = config.k, config.kappa
        self.register_buffer("centroids", torch.zeros(config.k, dim))
        self.register_buffer("spread", torch.ones(config.k, dim))
        self.register_buffer("spherical", torch.tensor(True))
        self.mean = nn.Parameter(torch.zeros(config.k, dim)) if config.learnable else None
        self.log_std = nn.Parameter(torch.zeros(config.k, dim)) if config.learnable else None
        self.choice = choice_of(config, fields, dim)
        self.fields = () if config.field is None else (config.field,)

    @property
    def has_components(self) -> bool:
        return True

    @torch.no_grad()
    def fit(self, z: Float[Tensor, "n dim"], batch: Batch, seed: int) -> None:
        fitted = moments(z, self.k, seed=seed)
        self.centroids.copy_(fitted.mean)
        self.spread.copy_(fitted.std)
        self.spherical.copy_(fitted.spherical)
        if self.mean is not None and self.log_std is not None:
            self.mean.copy_(fitted.mean / _LEARNING_SCALE)
            self.log_std.copy_(fitted.std.log() / _LEARNING_SCALE)
        self.choice.fit(self.of_rows(z, batch), batch)

    @property
    def means(self) -> Float[Tensor, "k dim"]:
        """mu."""
        return self.centroids if self.mean is None else self.mean * _LEARNING_SCALE

    @property
    def stds(self) -> Float[Tensor, "k dim"]:
        """sigma, without kappa."""
        return self.spread if self.log_std is None else (self.log_std * _LEARNING_SCALE).exp()

    def owner(self, z: Float[Tensor, "b dim"]) -> Int[Tensor, " b"]:
        """The cluster of a row. It keeps its rows where mu learns on, so that the frequencies stay theirs."""
        return nearest(z, self.centroids, spherical=bool(self.spherical))

    @torch.no_grad()
    def of_rows(self, z: Float[Tensor, "b dim"], batch: Batch) -> Int[Tensor, " b"]:
        owner, key = self.owner(z), self.choice.key(batch, self.means)
        return owner if key is None else torch.where(key < 0, owner, key)

    def sampled(self, batch: Batch, rng: Rng) -> Int[Tensor, " rows"]:
        """One uniform for each row; none if k is 1."""
        if self.k == 1:
            return torch.zeros(rng.rows, dtype=torch.int64, device=self.centroids.device)
        edges = self.choice.probabilities(batch, rng.rows, self.means).double().cumsum(1)
        at = rng.uniform().double()[:, None] * edges[:, -1:]
        return torch.searchsorted(edges, at, right=True)[:, 0].clamp(max=self.k - 1)

    def frame(self, component: Int[Tensor, " b"]) -> Frame:
        return Frame(self.means[component].detach(), self.kappa * self.stds[component].detach())

    def loss(
        self, z: Float[Tensor, "b dim"], component: Int[Tensor, " b"], batch: Batch, rng: Rng, weight: Tensor | float
    ) -> Float[Tensor, " b"] | None:
        """What moves learnable Gaussians, times `weight`, and what trains the choice; None where nothing learns.

        -cos(z, z_T) over draws of z_T, plus the cosine of mu_c to the others, by frequency. Paper: 2211.15388, L_p with
        xi = 1. Differs: its second term is the mean over the pairs of the batch, of which this is the expectation; so
        the loss of a row does not depend on its companions.
        """
        learned = self.choice.loss(component, batch)
        if self.mean is None:
            return learned
        means, scale = self.means, self.kappa * self.stds[component]
        start = means[component][:, None] + scale[:, None] * rng.normal(_N_PULLS, z.shape[1])
        pull = -nn.functional.cosine_similarity(start, z[:, None], dim=2).mean(1)
        unit = nn.functional.normalize(means, dim=1)
        apart = (unit[component] @ unit.T) @ self.choice.weight.to(unit.dtype)
        moved = (pull + apart) * weight
        return moved if learned is None else moved + learned
