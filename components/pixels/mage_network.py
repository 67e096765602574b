"""The transformer of MAGE: an encoder that sees the kept tokens, a decoder that sees every position.

Paper: 2211.09117 (MAGE), 2312.03701 (RCG). Parameter names are the reference's, except that its latent_prior_proj and
fake_latent are those of conditioner.representation. Its files hold more that no forward pass needs: cls_token,
mask_token, patch_embed, pos_embed, decoder_pos_embed, decoder_pred, token_emb.position_ids, and 1,000 legacy words
(rows of the word table and of the head's bias) between the codes and the mask token.
n: tokens of an image; position 0 of n + 1 holds the vector condition. m: positions of a sequence condition, which stand
behind the image's, where no index of an image token depends on them; they have no positions of their own.
"""

from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as tf

from components.conditions.ports import Ports
from components.errors import ShapeError
from components.nn.attention import Block
from components.nn.dropout import RowDropout


class TokenEmbedding(nn.Module):
    """Word plus position, then LayerNorm, as in BERT. The last word is the mask token."""

    def __init__(self, n_words: int, n_positions: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(n_words, width)
        self.position_embeddings = nn.Embedding(n_positions, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n width"]:
        """Positions 1..n; nothing is looked up for position 0, which the vector condition takes."""
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
    """Tokens, some masked, and conditions -> logits of every token.

    A vector takes the place of the class token; the rows of a sequence, of the same width, are further tokens of both
    encoder and decoder. Raises: ShapeError without a vector.
    """

    ports = frozenset({"vector", "sequence"})

    def __init__(
        self,
        *,
        n_tokens: int,
        n_codes: int,
        width: int,
        depth: int,
        heads: int,
        decoder_depth: int,
        decoder_heads: int,
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        self.vector_width, self.sequence_width, self.c_extra = width, width, 0
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
        ports: Ports,
        *,
        kept: Int[Tensor, "b k"] | None = None,
        dropout: RowDropout | None = None,
    ) -> Float[Tensor, "b n codes"]:
        """`kept`: the token positions that the encoder sees, all of them if None; those may be masked as well."""
        x = self.token_emb(ids.masked_fill(masked, self.mask_id))
        x = x if dropout is None else dropout(x, 1)
        if kept is not None:
            x = x.gather(1, kept[:, :, None].expand(-1, -1, x.shape[2]))
        x, seen = _joined(x, ports)  # no position, norm or dropout for the conditions
        for i, block in enumerate(self.blocks):
            x = block(x, seen, _masks_of(i, dropout))
        x = self.decoder_embed(self.norm(x))
        x, sequence = _parted(x, ports)
        x = self._fill(x, masked, kept) + self.decoder_pos_embed_learned
        x = _followed(x, sequence)
        seen = _seen(ports, 1 + ids.shape[1])
        for i, block in enumerate(self.decoder_blocks, len(self.blocks)):
            x = block(x, seen, _masks_of(i, dropout))
        image = _parted(self.decoder_norm(x), ports)[0][:, 1:]
        logits: Tensor = self.mlm_layer(image, self.token_emb.word_embeddings.weight)
        return logits

    def unknown(self, ids: Int[Tensor, "b n"], hidden: Int[Tensor, "b h"], ports: Ports) -> Float[Tensor, "b h codes"]:
        """forward() at the masked positions, which are `hidden`, as many in each row.

        The last blocks of encoder and decoder compute only those positions whose outputs are read.
        """
        n = ids.shape[1]
        masked = torch.zeros_like(ids, dtype=torch.bool).scatter(1, hidden, True)
        known = masked.to(torch.uint8).argsort(dim=1, stable=True)[:, : n - hidden.shape[1]]
        known = torch.cat([torch.zeros_like(hidden[:, :1]), known + 1], 1)  # the vector's position is always known
        x, seen = _joined(self.token_emb(ids.masked_fill(masked, self.mask_id)), ports)
        behind = torch.arange(n + 1, x.shape[1], device=x.device).expand(len(x), -1)
        x = _walk_to(self.blocks, x, torch.cat([known, behind], 1), seen)
        x, sequence = _parted(self.decoder_embed(self.norm(x)), ports)
        full = x[:, :1].expand(-1, n + 1, -1).scatter(1, known[:, :, None].expand_as(x), x)
        full = _followed(full + self.decoder_pos_embed_learned, sequence)
        x = _walk_to(self.decoder_blocks, full, hidden + 1, _seen(ports, n + 1))
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


def _joined(x: Float[Tensor, "b n width"], ports: Ports) -> tuple[Float[Tensor, "b k width"], Tensor | None]:
    """Vector, image tokens and sequence in a row, and which positions can be attended to: all if None."""
    if ports.vector is None:
        raise ShapeError("mage needs a vector in the place of its class token", got="no vector condition")
    rows = [ports.vector[:, None], x] if ports.sequence is None else [ports.vector[:, None], x, ports.sequence]
    return torch.cat(rows, 1), _seen(ports, 1 + x.shape[1])


def _followed(x: Float[Tensor, "b n width"], sequence: Tensor | None) -> Float[Tensor, "b k width"]:
    return x if sequence is None else torch.cat([x, sequence], 1)


def _seen(ports: Ports, n: int) -> Bool[Tensor, "b k"] | None:
    """Which of n positions and a sequence behind them can be attended to."""
    return None if ports.mask is None else torch.cat([ports.mask.new_ones(len(ports.mask), n), ports.mask], 1)


def _parted(x: Float[Tensor, "b k width"], ports: Ports) -> tuple[Tensor, Tensor | None]:
    """Undo `_joined`: vector and image tokens, and the sequence."""
    if ports.sequence is None:
        return x, None
    n = x.shape[1] - ports.sequence.shape[1]
    return x[:, :n], x[:, n:]


def _walk_to(
    blocks: nn.ModuleList, x: Tensor, places: Int[Tensor, "b p"], seen: Bool[Tensor, "b k"] | None
) -> Float[Tensor, "b p width"]:
    """All blocks, the last one at these places only."""
    *inner, last = cast(list[Block], list(blocks))
    for block in inner:
        x = block(x, seen)
    return last.at(x, places, seen)


def _masks_of(i: int, dropout: RowDropout | None) -> RowDropout | None:
    """The masks of block i, of encoder and decoder counted together; the first mask is the embedding's."""
    return None if dropout is None else dropout.after(1 + i * Block.N_MASKS)
