"""The transformer of MAGE: an encoder that sees the kept tokens, a decoder that sees every position.

Paper: 2211.09117 (MAGE), 2312.03701 (RCG). Parameter names are the reference's, except that its latent_prior_proj and
fake_latent are conditioner.project and conditioner.null. Its files hold more that no forward pass needs: cls_token,
mask_token, patch_embed, pos_embed, decoder_pos_embed, decoder_pred, token_emb.position_ids, and 1,000 legacy words
(rows of the word table and of the head's bias) between the codes and the mask token.
n: tokens of an image; position 0 of n + 1 holds the condition.
"""

from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as tf

from components.nn.attention import Attention, Block, attend_explicitly
from components.nn.dropout import RowDropout


class TokenEmbedding(nn.Module):
    """Word plus position, then LayerNorm, as in BERT. The last word is the mask token."""

    def __init__(self, n_words: int, n_positions: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(n_words, width)
        self.position_embeddings = nn.Embedding(n_positions, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n width"]:
        """Positions 1..n; nothing is looked up for position 0, which the condition takes."""
        out: Tensor = self.LayerNorm(self.word_embeddings(ids) + self.position_embeddings.weight[1:])
        return out


class TokenHead(nn.Module):
    """Hidden state -> logits of the codes, through the transposed word embeddings, which get no gradient from here."""

    def __init__(self, n_codes: int, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.ln = nn.LayerNorm(width, eps=1e-5)
        self.bias = nn.Parameter(torch.zeros(1, 1, n_codes))

    def forward(self, x: Float[Tensor, "b n width"], words: Float[Tensor, "m width"]) -> Float[Tensor, "b n k"]:
        h = self.ln(tf.gelu(self.fc(x)))
        return tf.linear(h, words.detach()[: self.bias.shape[-1]]) + self.bias


class MageTransformer(nn.Module):
    """Tokens, some masked, and a condition vector -> logits of every token."""

    def __init__(
        self, *, n_tokens: int, n_codes: int, width: int, depth: int, heads: int, decoder_depth: int,
        decoder_heads: int, mlp_ratio: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mask_id = n_codes
        self.token_emb = TokenEmbedding(n_codes + 1, n_tokens + 1, width)
        self.blocks = _blocks(depth, width, heads, mlp_ratio)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder_embed = nn.Linear(width, width)
        self.decoder_pos_embed_learned = nn.Parameter(torch.empty(1, n_tokens + 1, width))
        self.decoder_blocks = _blocks(decoder_depth, width, decoder_heads, mlp_ratio)
        self.decoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlm_layer = TokenHead(n_codes, width)
        self._initialize()

    def _initialize(self) -> None:
        """Xavier-uniform matrices with zero biases; embeddings and positions N(0, 0.02)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.normal_(self.decoder_pos_embed_learned, std=0.02)

    def forward(
        self,
        ids: Int[Tensor, "b n"],
        masked: Bool[Tensor, "b n"],
        condition: Float[Tensor, "b width"],
        *,
        kept: Int[Tensor, "b k"] | None = None,
        dropout: RowDropout | None = None,
    ) -> Float[Tensor, "b n codes"]:
        """`kept`: the token positions that the encoder sees, all of them if None; those may be masked as well."""
        x = self.token_emb(ids.masked_fill(masked, self.mask_id))
        x = x if dropout is None else dropout(x)
        if kept is not None:
            x = x.gather(1, kept[:, :, None].expand(-1, -1, x.shape[2]))
        x = torch.cat([condition[:, None], x], 1)  # no position, norm or dropout for the condition
        for block in self.blocks:
            x = _apply(block, x, dropout)
        x = self.decoder_embed(self.norm(x))
        x = self._fill(x, masked, kept) + self.decoder_pos_embed_learned
        for block in self.decoder_blocks:
            x = _apply(block, x, dropout)
        logits: Tensor = self.mlm_layer(self.decoder_norm(x)[:, 1:], self.token_emb.word_embeddings.weight)
        return logits

    def unknown(
        self, ids: Int[Tensor, "b n"], hidden: Int[Tensor, "b m"], condition: Float[Tensor, "b width"]
    ) -> Float[Tensor, "b m codes"]:
        """forward() at the masked positions, which are `hidden`, as many in each row.

        Of the last block of encoder and decoder only those positions are worked out that something is made of.
        """
        n, m = ids.shape[1], hidden.shape[1]
        masked = torch.zeros_like(ids, dtype=torch.bool).scatter(1, hidden, True)
        known = masked.to(torch.uint8).argsort(dim=1, stable=True)[:, : n - m]
        known = torch.cat([torch.zeros_like(hidden[:, :1]), known + 1], 1)  # the condition's position is always known
        x = self.token_emb(ids.masked_fill(masked, self.mask_id))
        x = torch.cat([condition[:, None], x], 1)
        x = self.decoder_embed(self.norm(_walk_to(self.blocks, x, known)))
        full = x[:, :1].expand(-1, n + 1, -1).scatter(1, known[:, :, None].expand_as(x), x)
        x = _walk_to(self.decoder_blocks, full + self.decoder_pos_embed_learned, hidden + 1)
        logits: Tensor = self.mlm_layer(self.decoder_norm(x), self.token_emb.word_embeddings.weight)
        return logits

    @staticmethod
    def _fill(x: Tensor, masked: Bool[Tensor, "b n"], kept: Tensor | None) -> Float[Tensor, "b m width"]:
        """Every position that is masked, or that the encoder did not see, gets the output of position 0."""
        first, seen = x[:, :1], x[:, 1:]
        if kept is not None:
            blank = first.expand(-1, masked.shape[1], -1)
            seen = blank.scatter(1, kept[:, :, None].expand_as(seen), seen)
        return torch.cat([first, torch.where(masked[:, :, None], first, seen)], 1)


def _blocks(depth: int, width: int, heads: int, mlp_ratio: float) -> nn.ModuleList:
    return nn.ModuleList(Block(width, heads, mlp_ratio=mlp_ratio, qkv_bias=True) for _ in range(depth))


def _walk_to(blocks: nn.ModuleList, x: Tensor, places: Int[Tensor, "b m"]) -> Float[Tensor, "b m width"]:
    """All blocks, the last one at these places only."""
    *inner, last = cast(list[Block], list(blocks))
    for block in inner:
        x = block(x)
    return last.at(x, places)


def _apply(block: nn.Module, x: Tensor, dropout: RowDropout | None) -> Tensor:
    """The block, with dropout of attention weights, attention output and both layers of the MLP."""
    if dropout is None or not isinstance(block, Block):
        out: Tensor = block(x)
        return out
    x = x + dropout(_attend(block.attn, block.norm1(x), dropout))
    hidden = dropout(block.mlp.act(block.mlp.fc1(block.norm2(x))))
    return x + dropout(block.mlp.fc2(hidden))


def _attend(attention: Attention, x: Tensor, dropout: RowDropout) -> Tensor:
    """Attention with dropout of its weights."""
    b, n, width = x.shape
    qkv = attention.qkv(x).reshape(b, n, 3, attention.heads, width // attention.heads)
    mixed = attend_explicitly(*qkv.permute(2, 0, 3, 1, 4), drop=dropout)  # (b, heads, n, d)
    out: Tensor = attention.proj(mixed.transpose(1, 2).reshape(b, n, width))
    return out
