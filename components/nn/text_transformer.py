"""The transformer that GLIDE trains on captions, along with its UNet. Paper: 2112.10741, sec. 2.3.

Parameter names are those of the paper's code, one to one. m: positions of a text, padding included.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from components.nn.attention import attend
from components.nn.unit import Unit


class TextTransformer(nn.Module):
    """Ids of tokens -> the state of the last position, mapped to `c_out`, and those of all positions.

    Every position attends to every other, padding among them: what stands at a position without a token is a learned
    vector of that position. Raises: ShapeError for a text of another length than `n_positions`.
    """

    def __init__(self, *, n_ids: int, n_positions: int, width: int, depth: int, heads: int, c_out: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(n_positions, width))
        self.padding_embedding = nn.Parameter(torch.empty(n_positions, width))
        self.transformer = Blocks(width, depth, heads)
        self.final_ln = nn.LayerNorm(width)
        self.token_embedding = nn.Embedding(n_ids, width)
        self.transformer_proj = nn.Linear(width, c_out)
        self._initialize(width, depth)

    def _initialize(self, width: int, depth: int) -> None:
        """Normal, of the scales of CLIP's text transformer (2103.00020); zero biases.

        Differs: the paper's code leaves positions as memory has them.
        """
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        for positions in (self.positional_embedding, self.padding_embedding):
            nn.init.normal_(positions, std=0.01)
        after = width**-0.5 * (2 * depth) ** -0.5  # what is added to the residual stream
        scales = {"c_qkv": width**-0.5, "c_fc": (2 * width) ** -0.5, "c_proj": after, "transformer_proj": width**-0.5}
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=scales[name.rpartition(".")[2]])
                nn.init.zeros_(module.bias)

    def forward(
        self, ids: Int[Tensor, "b m"], mask: Bool[Tensor, "b m"]
    ) -> tuple[Float[Tensor, "b out"], Float[Tensor, "b m width"]]:
        """`mask`: where there is a token; what ids say elsewhere is not read."""
        tokens = self.token_embedding(ids.masked_fill(~mask, 0)) + self.positional_embedding
        x = torch.where(mask[:, :, None], tokens, self.padding_embedding)
        states = self.final_ln(self.transformer(x))
        return self.transformer_proj(states[:, -1]), states


class Blocks(nn.Module):
    """Blocks in a row."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(TextBlock(width, heads) for _ in range(depth))

    def forward(self, x: Float[Tensor, "b m width"]) -> Float[Tensor, "b m width"]:
        for block in self.resblocks:
            x = block(x)
        return x


class TextBlock(Unit, nn.Module):
    """Pre-norm transformer block with an MLP of four times the width and an exact GELU. LayerNorm eps 1e-5."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = TextAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = TextMlp(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b m width"]) -> Float[Tensor, "b m width"]:
        x = x + self.attn(self.ln_1(x))
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class TextAttention(nn.Module):
    """Self-attention whose qkv rows are those of the first head, then of the second, as in GLIDE's UNet."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_qkv = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b m width"]) -> Float[Tensor, "b m width"]:
        b, m, width = x.shape
        q, k, v = self.c_qkv(x).view(b, m, self.heads, 3, width // self.heads).permute(3, 0, 2, 1, 4)
        out: Tensor = self.c_proj(attend(q, k, v).transpose(1, 2).reshape(b, m, width))
        return out


class TextMlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c_proj(nn.functional.gelu(self.c_fc(x)))
        return out
