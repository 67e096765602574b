"""Masked tokens: a transformer fills in the tokens of a codec that are masked, and is sampled by iterative decoding.

Paper: 2211.09117 (MAGE), 2312.03701 (RCG), 2202.04200 (MaskGIT, the decoding).
n: tokens of an image, r: share of them that is masked.
"""

import math
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as tf

from components.base import Batch
from components.conditions.container import Conditions
from components.conditions.ports import Ports
from components.errors import ShapeError
from components.generators.base import Generator
from components.generators.config import GeneratorData, MaskConfig, MaskedConfig
from components.generators.known import known_part
from components.generators.sampling import AnySampling, MaskedSampling, check_sampling
from components.nn.dropout import RowDropout
from components.rng import BatchRng, Rng


class MaskedTokens(Generator):
    """Masked tokens -> all tokens, given conditions."""

    config: MaskedConfig

    def __init__(
        self, config: MaskedConfig, data: GeneratorData, *, transformer: nn.Module, conditions: Conditions
    ) -> None:
        super().__init__(config, data, spec=data.target)
        self.n_tokens = math.prod(data.target.shape)
        self.transformer: Any = transformer
        self.conditioner = conditions

    def loss(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        """Label-smoothed cross-entropy over the masked tokens.

        As all rows share one ratio, the mean over rows is the mean over masked tokens.
        """
        ids = self.checked(batch).flatten(1).long()
        masked, kept = self._mask(rng)
        ports = self.conditioner.training_ports(batch, rng)
        drops = self.training and self.config.drop_prob > 0
        dropout = RowDropout(rng, self.config.drop_prob) if drops else None
        logits = self.transformer(ids, masked, ports, kept=kept, dropout=dropout)
        smoothing = self.config.label_smoothing
        each = tf.cross_entropy(logits.transpose(1, 2).float(), ids, label_smoothing=smoothing, reduction="none")
        return (each * masked).sum(1) / masked.sum(1)

    def _mask(self, rng: BatchRng) -> tuple[Bool[Tensor, "b n"], Int[Tensor, "b k"]]:
        """Which tokens are masked, and where those are that the encoder sees; the others are masked as well."""
        n, n_left_out = self.n_tokens, min(math.ceil(self.n_tokens * self.config.mask.least), self.n_tokens - 1)
        ratio = mask_ratio(self.config.mask, rng.shared_uniform(1))
        order = rng.uniform(n).argsort(dim=1, stable=True)
        rank = order.argsort(dim=1)
        return rank < torch.ceil(n * ratio), order[:, n_left_out:]

    @torch.no_grad()
    def sample(self, batch: Batch, sampling: AnySampling, rng: Rng) -> Int[Tensor, "rows h w"]:
        """Decode from all masked; the ids of the last iteration, including those that it would mask again.

        Tokens that are known stay, and the others are decoded with them in sight, by the same share per iteration.
        Raises: ShapeError when the rows do not know equally many.
        """
        check_sampling(sampling, self.config)
        options = cast(MaskedSampling, sampling)
        ports, null = self.conditioner.sampling_ports(batch, rng)
        n, device = self.n_tokens, next(self.parameters()).device
        ids = torch.zeros(rng.rows, n, dtype=torch.int64, device=device)
        hidden = torch.arange(n, device=device).expand(rng.rows, -1)
        given = known_part(batch, self.spec)
        if given is not None:
            ids, hidden = given.target.flatten(1).long(), _unknown(given.where.flatten(1))
        for step, n_masked in enumerate(masked_counts(hidden.shape[1], options.steps), 1):
            log_p = (
                self._guided(ids, hidden, (ports, null), options.guidance * step / options.steps)
                .float()
                .log_softmax(-1)
            )
            drawn = _sampled(log_p, rng.uniform(n).gather(1, hidden))
            ids = ids.scatter(1, hidden, drawn)
            noise = options.temperature * (1 - step / options.steps) * _gumbel(rng.uniform(n).gather(1, hidden))
            confidence = log_p.gather(2, drawn[:, :, None])[:, :, 0] + noise
            hidden = hidden.gather(1, confidence.topk(n_masked, dim=1, largest=False).indices).sort(dim=1).values
        return ids.to(torch.int32).view(rng.rows, *self.spec.shape)

    def _guided(self, ids: Tensor, hidden: Tensor, ports: tuple[Ports, Ports], scale: float) -> Tensor:
        """Logits of the hidden tokens; with a scale, both halves of guidance run as one batch.

        While every token is hidden, and nothing but nulls stands on the other half, it is the same for all rows, so one
        row of it will do.
        """
        cond_ports, null = ports
        if scale == 0:
            logits: Tensor = self.transformer.unknown(ids, hidden, cond_ports)
            return logits
        b = len(ids)
        rows = 1 if hidden.shape[1] == self.n_tokens and self.conditioner.all_dropped else b
        both = self.transformer.unknown(
            torch.cat([ids, ids[:rows]]), torch.cat([hidden, hidden[:rows]]), cond_ports.beside(null.first(rows))
        )
        cond, uncond = both[:b], both[b:]
        guided: Tensor = cond + scale * (cond - uncond)
        return guided


def _unknown(known: Bool[Tensor, "b n"]) -> Int[Tensor, "b h"]:
    """Positions that are not known, as many in each row."""
    counts = (~known).sum(1)
    if int(counts.min()) != int(counts.max()) or int(counts.max()) == 0:
        raise ShapeError("every row has to miss equally many tokens, and one at least", got=counts.tolist())
    return known.to(torch.uint8).argsort(dim=1, stable=True)[:, : int(counts[0])]


def mask_ratio(mask: MaskConfig, u: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Inverse CDF of the share of masked tokens at u in [0, 1)."""
    low, high = (_normal_cdf((bound - mask.mean) / mask.std) for bound in (mask.least, 1.0))
    z: Tensor = torch.special.ndtri(low + u.double() * (high - low))
    return (mask.mean + mask.std * z).clamp(mask.least, 1.0)


def masked_counts(n: int, steps: int) -> list[int]:
    """How many of n tokens are masked after each iteration: floor(n cos(pi r / 2)), falling, at least 1.

    Differs: the reference reads the count off row 0 on every iteration; it depends on nothing but the step.
    """
    counts, unknown = [], n
    for step in range(1, steps + 1):
        wanted = math.floor(n * math.cos(math.pi / 2 * step / steps))
        unknown = max(1, min(unknown - 1, wanted))
        counts.append(unknown)
    return counts


def _sampled(log_p: Float[Tensor, "b n k"], u: Float[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """One code per token by the inverse CDF: one uniform each, so little noise to draw."""
    cdf = log_p.exp().cumsum(-1)
    return (cdf <= u[:, :, None] * cdf[:, :, -1:]).sum(-1).clamp(max=log_p.shape[-1] - 1)


def _gumbel(u: Tensor) -> Tensor:
    tiny = torch.finfo(u.dtype).tiny
    return -(-(u + tiny).log()).clamp(min=tiny).log()


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
