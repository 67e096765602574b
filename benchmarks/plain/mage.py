"""Training and decoding of MAGE. The vocabulary has the published 1,000 unused words, the head all 2,025."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as tf

from benchmarks.plain.layers import block, represent, tokens
from components.codecs.vqgan import Vqgan
from components.encoders.base import FrozenEncoder
from components.generators.masked import MaskedTokens
from components.rng import Rng

_UNUSED = 1000


class Plain:
    """Forward passes over the weights of one of our models."""

    def __init__(self, mage: MaskedTokens) -> None:
        self.mage, self.net = mage, mage.transformer
        self.unused = torch.zeros(_UNUSED, mage.config.width)

    def embed(self, ids: Tensor, condition: Tensor, drop: float) -> Tensor:
        """All 257 positions; the first is overwritten by the condition."""
        emb: Any = self.net.token_emb
        ids = torch.cat([torch.zeros_like(ids[:, :1]), ids], 1)
        x: Tensor = tf.dropout(emb.LayerNorm(emb.word_embeddings(ids) + emb.position_embeddings.weight), drop)
        return torch.cat([condition[:, None], x[:, 1:]], 1)

    def encode(self, x: Tensor, drop: float) -> Tensor:
        for layer in self.net.blocks:
            x = block(layer, x, drop)
        out: Tensor = self.net.norm(x)
        return out

    def decode(self, x: Tensor, masked: Tensor, kept: Tensor | None, drop: float) -> Tensor:
        """Logits of the codes, by way of the logits of all words."""
        x = self.net.decoder_embed(x)
        full = x[:, :1].repeat(1, masked.shape[1] + 1, 1)
        if kept is None:
            full = torch.where(torch.cat([torch.zeros_like(masked[:, :1]), masked], 1)[:, :, None], full, x)
        else:
            full[kept] = x.reshape(-1, x.shape[2])
            full = torch.where(torch.cat([torch.zeros_like(masked[:, :1]), masked], 1)[:, :, None], x[:, :1], full)
        x = full + self.net.decoder_pos_embed_learned
        for layer in self.net.decoder_blocks:
            x = block(layer, x, drop)
        head: Any = self.net.mlm_layer
        h = head.ln(tf.gelu(head.fc(self.net.decoder_norm(x))))
        n_codes = head.bias.shape[-1]
        words = torch.cat([self.net.token_emb.word_embeddings.weight, self.unused]).detach()
        logits: Tensor = (h @ words.T)[:, 1:, :n_codes] + head.bias
        return logits

    def logits(self, ids: Tensor, masked: Tensor, condition: Tensor) -> Tensor:
        """As generation needs them: nothing is left out of the encoder."""
        x = self.embed(ids.masked_fill(masked, self.net.mask_id), condition, 0.0)
        return self.decode(self.encode(x, 0.0), masked, None, 0.0)


class Training:
    """One optimizer step on images: tokens and representations are worked out anew."""

    def __init__(self, mage: MaskedTokens, encoder: FrozenEncoder, codec: Vqgan) -> None:
        self.plain, self.encoder, self.codec = Plain(mage), encoder, codec
        self.optimizer = torch.optim.AdamW(mage.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)

    def step(self, images: Tensor) -> float:
        mage, drop = self.plain.mage, self.plain.mage.config.drop_prob
        z, ids = represent(self.encoder, images), tokens(self.codec, images).flatten(1)
        b, n = ids.shape
        rank = torch.rand(b, n).argsort(1).argsort(1)
        masked, kept = rank < math.ceil(n * 0.75), rank >= n // 2
        kept = torch.cat([torch.ones_like(kept[:, :1]), kept], 1)
        by_z: Any = mage.conditioner["representation"]
        dropped = torch.rand(b, 1) < 0.1
        condition = by_z.project(torch.where(dropped, by_z.null, z))
        x = self.plain.embed(ids.masked_fill(masked, self.plain.net.mask_id), condition, drop)
        x = x[kept].reshape(b, -1, x.shape[2])
        logits = self.plain.decode(self.plain.encode(x, drop), masked, kept, drop)
        each = tf.cross_entropy(logits.transpose(1, 2), ids, label_smoothing=0.1, reduction="none")
        loss = (each * masked).sum() / masked.sum()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(mage.parameters(), 3.0)
        self.optimizer.step()
        return float(loss.item())


@torch.no_grad()
def sample(mage: MaskedTokens, z: Tensor, rng: Rng, *, steps: int, temperature: float, guidance: float) -> Tensor:
    """Token ids. Counts are read off the first row at every iteration."""
    plain, b = Plain(mage), len(z)
    by_z: Any = mage.conditioner["representation"]
    condition = by_z.project(torch.cat([z, by_z.null.expand(b, -1)]))
    n = mage.n_tokens
    ids, masked = torch.zeros(b, n, dtype=torch.int64), torch.ones(b, n, dtype=torch.bool)
    for i in range(steps):
        share = (i + 1) / steps
        cond, uncond = plain.logits(torch.cat([ids, ids]), torch.cat([masked, masked]), condition).chunk(2)
        scale = guidance * share
        log_p = (cond + scale * (cond - uncond)).log_softmax(-1)
        cdf = log_p.exp().cumsum(-1)
        drawn = (cdf <= rng.uniform(n)[:, :, None] * cdf[:, :, -1:]).sum(-1).clamp(max=log_p.shape[-1] - 1)
        ids = torch.where(masked, drawn, ids)
        noise = rng.uniform(n).clamp(min=torch.finfo(torch.float32).tiny)
        sure = log_p.gather(2, ids[:, :, None])[:, :, 0] - temperature * (1 - share) * (-noise.log()).log()
        sure = sure.masked_fill(~masked, torch.inf)
        count = max(1, min(int(masked[0].sum()) - 1, math.floor(n * math.cos(math.pi / 2 * share))))
        least = sure.topk(count, 1, largest=False).indices
        masked = torch.zeros_like(masked).scatter(1, least, True)
    return ids.view(b, *mage.data.target.shape)
