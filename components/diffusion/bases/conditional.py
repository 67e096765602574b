"""Each row starts from a Gaussian of its own, around the mean that a condition leads one to expect.

y: condition, z: row, mu(y): mean, sigma: deviation. Paper: 2502.09611 (CPD-FM).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import layer_norm

from components.base import Batch
from components.diffusion.bases.choice import present, vector_field
from components.diffusion.bases.config import ConditionalConfig
from components.diffusion.process import BaseDistribution, Frame
from components.fields import FieldSpec
from components.nn.ridge import ridge
from components.rng import Rng

_LEAST = 0.1
"""Lowest sigma, in deviations of all rows."""


class Conditional(BaseDistribution):
    """N(mu(y), kappa^2 diag(sigma^2)), mu by ridge regression on y standardized by row, sigma of what that leaves open.

    A row without y starts from mean and deviation of all training rows. The component of a row is its mu and sigma
    themselves: (b, 2, dim). Nothing of it is trained: learned beside the denoiser (2602.05951) it needs regularizers
    against collapse, and moves under it (docs/LOG.md). Buffers: as fitted.
    Raises: ConfigError for a field that is no vector.
    """

    center: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor
    open: Tensor

    def __init__(self, config: ConditionalConfig, *, dim: int, fields: Sequence[FieldSpec]) -> None:
        super().__init__()
        width = vector_field(fields, config.field).size
        self.kappa, self.fields = config.kappa, (config.field,)
        self.register_buffer("center", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))
        self.register_buffer("weight", torch.zeros(width, dim))
        self.register_buffer("bias", torch.zeros(dim))
        self.register_buffer("open", torch.ones(dim))

    @property
    def has_components(self) -> bool:
        return True

    @torch.no_grad()
    def fit(self, z: Float[Tensor, "n dim"], batch: Batch, seed: int) -> None:  # noqa: ARG002
        rows, (field,) = z.double(), self.fields
        center, spread = rows.mean(0), rows.std(0, correction=0).clamp(min=1e-6)
        self.center.copy_(center)
        self.spread.copy_(spread)
        self.bias.copy_(center)
        self.open.copy_(spread)
        told = present(batch, field)
        if int(told.sum()) < 2:
            return
        x, y = _standardized(batch[field][told]).double(), rows[told]
        found = ridge(x - x.mean(0), y - y.mean(0))
        bias = y.mean(0) - x.mean(0) @ found.weight
        left = (y - bias - x @ found.weight).square().sum(0) / max(1.0, len(y) - 1 - found.freedom)
        self.weight.copy_(found.weight)
        self.bias.copy_(bias)
        self.open.copy_(torch.maximum(left.sqrt(), _LEAST * spread))

    @torch.no_grad()
    def of_rows(self, z: Float[Tensor, "b dim"], batch: Batch) -> Float[Tensor, "b 2 dim"]:
        return self._read(batch, len(z))

    @torch.no_grad()
    def sampled(self, batch: Batch, rng: Rng) -> Float[Tensor, "rows 2 dim"]:
        return self._read(batch, rng.rows)

    def frame(self, component: Float[Tensor, "b 2 dim"]) -> Frame:
        return Frame(component[:, 0], self.kappa * component[:, 1])

    def loss(self, *_: object) -> None:
        """Nothing learns."""

    def _read(self, batch: Batch, n: int) -> Float[Tensor, "n 2 dim"]:
        overall = torch.stack([self.center, self.spread]).expand(n, -1, -1)
        (field,) = self.fields
        if field not in batch:
            return overall
        mu = _standardized(batch[field]) @ self.weight + self.bias
        return torch.where(present(batch, field)[:, None, None], torch.stack([mu, self.open.expand(n, -1)], 1), overall)


def _standardized(y: Float[Tensor, "b width"]) -> Float[Tensor, "b width"]:
    return layer_norm(y.float(), y.shape[1:])
