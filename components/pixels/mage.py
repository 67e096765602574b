"""MAGE: a masked generative transformer over the tokens of a codec.

Paper: 2211.09117 (MAGE), 2312.03701 (RCG), 2202.04200 (MaskGIT, the decoding).
n: tokens of an image, r: share of them that is masked.
"""

import math
from typing import Literal, Self, cast

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as tf

from components.base import Batch
from components.conditions.ports import Ports
from components.config import Config
from components.errors import ConfigError, ShapeError
from components.generators.config import GeneratorConfig
from components.generators.sampling import AnySampling, MaskedSampling, check_sampling
from components.nn.dropout import RowDropout
from components.pixels.base import PixelData, PixelGenerator
from components.pixels.condition import ConditionConfig, Conditioner
from components.pixels.mage_network import MageTransformer
from components.rng import BatchRng, Rng


class MaskConfig(Config):
    """Distribution of the share of tokens that is masked: a normal, truncated to [least, 1]."""

    mean: float = Field(gt=0, lt=1)
    """Mean of the normal before it is truncated."""
    std: float = Field(gt=0)
    """Its standard deviation."""
    least: float = Field(gt=0, lt=1)
    """Smallest share; as many tokens are left out of the encoder altogether."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(mean=0.75, std=0.25, least=0.5)

    def ratio(self, u: Float[Tensor, " 1"]) -> Float[Tensor, " 1"]:
        """Inverse CDF at u in [0, 1)."""
        low, high = (_normal_cdf((bound - self.mean) / self.std) for bound in (self.least, 1.0))
        z: Tensor = torch.special.ndtri(low + u.double() * (high - low))
        return (self.mean + self.std * z).clamp(self.least, 1.0)


class MageConfig(GeneratorConfig):
    """The published base model is width 768, depth 12 with 12 heads, decoder depth 8 with 16 heads."""

    sampled_by = "masked"
    kind: Literal["mage"]
    condition: ConditionConfig
    width: int = Field(ge=1)
    """Width of encoder and decoder."""
    depth: int = Field(ge=1)
    """Blocks of the encoder."""
    heads: int = Field(ge=1)
    """Attention heads of the encoder; divides width."""
    decoder_depth: int = Field(ge=1)
    """Blocks of the decoder."""
    decoder_heads: int = Field(ge=1)
    """Attention heads of the decoder; divides width."""
    mlp_ratio: float = Field(gt=0)
    """Hidden width of an MLP as a multiple of width."""
    drop_prob: float = Field(ge=0, lt=1)
    """Dropout of embeddings, attention weights, attention outputs and MLPs (0..1)."""
    label_smoothing: float = Field(ge=0, lt=1)
    """Share of the target probability that is spread over all codes."""
    mask: MaskConfig

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="mage", condition=ConditionConfig.tiny(), width=8, depth=1, heads=2, decoder_depth=1, decoder_heads=2,
            mlp_ratio=2, drop_prob=0.1, label_smoothing=0.1, mask=MaskConfig.tiny(),
        )  # fmt: skip

    def build(self, data: PixelData) -> "Mage":
        return Mage(self, data)


class Mage(PixelGenerator):
    """Masked tokens -> all tokens, given a condition. Raises: ConfigError unless the codec makes tokens."""

    config: MageConfig

    def __init__(self, config: MageConfig, data: PixelData) -> None:
        super().__init__()
        if data.target.space != "tokens" or data.target.n_codes is None:
            raise ConfigError(
                "mage generates tokens, but the codec does not make them",
                got=f"a codec for {data.target.space}",
                fix="set codec.model.kind: vqgan with space: tokens, or pixels.model.kind: dit",
            )
        self.config, self.data = config, data
        self.n_tokens = math.prod(data.target.shape)
        n_classes = None if data.classes is None else len(data.classes)
        self.transformer = MageTransformer(
            n_tokens=self.n_tokens, n_codes=data.target.n_codes, width=config.width, depth=config.depth,
            heads=config.heads, decoder_depth=config.decoder_depth, decoder_heads=config.decoder_heads,
            mlp_ratio=config.mlp_ratio,
        )  # fmt: skip
        self.conditioner = Conditioner(config.condition, width=config.width, dim=data.dim, n_classes=n_classes)
        self.conditions = self.conditioner.conditions

    def loss(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        """Label-smoothed cross-entropy over the masked tokens.

        As all rows share one ratio, the mean over rows is the mean over masked tokens.
        """
        target = batch["target"]
        if tuple(target.shape[1:]) != self.data.target.shape:
            raise ShapeError("target of the wrong shape", got=tuple(target.shape[1:]), expected=self.data.target.shape)
        ids = target.flatten(1).long()
        masked, kept = self._mask(rng)
        condition = self.conditioner(batch, rng)
        drops = self.training and self.config.drop_prob > 0
        dropout = RowDropout(rng, self.config.drop_prob) if drops else None
        logits = self.transformer(ids, masked, Ports(vector=condition), kept=kept, dropout=dropout)
        smoothing = self.config.label_smoothing
        each = tf.cross_entropy(logits.transpose(1, 2).float(), ids, label_smoothing=smoothing, reduction="none")
        return (each * masked).sum(1) / masked.sum(1)

    def _mask(self, rng: BatchRng) -> tuple[Bool[Tensor, "b n"], Int[Tensor, "b k"]]:
        """Which tokens are masked, and where those are that the encoder sees; the others are masked as well."""
        n, n_left_out = self.n_tokens, min(math.ceil(self.n_tokens * self.config.mask.least), self.n_tokens - 1)
        ratio = self.config.mask.ratio(rng.shared_uniform(1))
        order = rng.uniform(n).argsort(dim=1, stable=True)
        rank = order.argsort(dim=1)
        return rank < torch.ceil(n * ratio), order[:, n_left_out:]

    @torch.no_grad()
    def sample(self, batch: Batch, how: AnySampling, rng: Rng) -> Int[Tensor, "rows h w"]:
        """Decode from all masked; the ids of the last iteration, including those that it would mask again.

        Raises: ConfigError for another generator's sampling options, or guidance without a trained null.
        """
        check_sampling(how, self.config)
        how = cast(MaskedSampling, how)
        condition = self.conditioner.for_sampling(batch, rng)
        n = self.n_tokens
        ids = torch.zeros(rng.rows, n, dtype=torch.int64, device=condition.device)
        hidden = torch.arange(n, device=condition.device).expand(rng.rows, -1)
        for step, n_masked in enumerate(masked_counts(n, how.steps), 1):
            log_p = self._guided(ids, hidden, condition, how.guidance * step / how.steps).float().log_softmax(-1)
            drawn = _draw(log_p, rng.uniform(n).gather(1, hidden))
            ids = ids.scatter(1, hidden, drawn)
            noise = how.temperature * (1 - step / how.steps) * _gumbel(rng.uniform(n).gather(1, hidden))
            confidence = log_p.gather(2, drawn[:, :, None])[:, :, 0] + noise
            hidden = hidden.gather(1, confidence.topk(n_masked, dim=1, largest=False).indices).sort(dim=1).values
        return ids.to(torch.int32).view(rng.rows, *self.data.target.shape)

    def _guided(self, ids: Tensor, hidden: Tensor, condition: Tensor, scale: float) -> Tensor:
        """Logits of the hidden tokens; with a scale, both halves of guidance run as one batch.

        While every token is hidden the unconditional half is the same for all rows, so one row of it will do.
        """
        if scale == 0:
            logits: Tensor = self.transformer.unknown(ids, hidden, Ports(vector=condition))
            return logits
        b = len(ids)
        rows = 1 if hidden.shape[1] == self.n_tokens else b
        both = self.transformer.unknown(
            torch.cat([ids, ids[:rows]]),
            torch.cat([hidden, hidden[:rows]]),
            Ports(vector=torch.cat([condition, self.conditioner.null_for(rows)])),
        )
        cond, uncond = both[:b], both[b:]
        guided: Tensor = cond + scale * (cond - uncond)
        return guided


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


def _draw(log_p: Float[Tensor, "b n k"], u: Float[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """One code per token by the inverse CDF: one uniform each, so little noise to draw."""
    cdf = log_p.exp().cumsum(-1)
    return (cdf <= u[:, :, None] * cdf[:, :, -1:]).sum(-1).clamp(max=log_p.shape[-1] - 1)


def _gumbel(u: Tensor) -> Tensor:
    tiny = torch.finfo(u.dtype).tiny
    return -(-(u + tiny).log()).clamp(min=tiny).log()


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
