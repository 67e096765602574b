"""A caption as GLIDE reads it: by a transformer that is trained along with the generator.

Paper: 2112.10741, sec. 2.3.
"""

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from components.base import Batch
from components.conditions.base import FieldEmbedder, check_shape, check_width, checked
from components.conditions.config import TextTransformerConfig
from components.conditions.ports import Both, States
from components.errors import ConfigError
from components.fields import FieldSpec
from components.nn.text_transformer import TextTransformer


class TrainedText(FieldEmbedder):
    """Ids of tokens -> the state of the last position as a vector, and the states of all as a sequence.

    A dropped or missing caption is an empty one: padding alone, at which every position has a learned vector. So there
    is no other null, and every position counts as a key.
    Raises: ConfigError for a field without ids, or states that are fed as they are into a port of another width.
    """

    def __init__(
        self, config: TextTransformerConfig, *, vector_width: int, sequence_width: int, field: FieldSpec
    ) -> None:
        super().__init__(config)
        check_shape(field, n_axes=1, ragged=False, kind=config.kind)
        if field.n_ids is None:
            fix = "give the section text a tokenizer: text.bpe"
            raise ConfigError(f"the field {field.name} holds no ids of tokens", fix=fix)
        if not config.project:
            check_width("text", config.width, sequence_width, "sequence_dim")
        self.n_positions = field.size
        self.encoder = TextTransformer(
            n_ids=field.n_ids,
            n_positions=self.n_positions,
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            c_out=vector_width,
        )
        self.embed = nn.Linear(config.width, sequence_width) if config.project else nn.Identity()
        if isinstance(self.embed, nn.Linear):
            nn.init.xavier_uniform_(self.embed.weight)
            nn.init.zeros_(self.embed.bias)

    def forward(self, batch: Batch, drop: Bool[Tensor, " b"] | None) -> Both:
        ids = checked(self.field, batch[self.field], (self.n_positions,)).long()
        absent = self.absent(batch, drop)
        mask = ids >= 0 if absent is None else (ids >= 0) & ~absent[:, None]
        return self._read(ids, mask)

    def nulls(self, n: int, m: int = 1) -> Both:  # noqa: ARG002
        nothing = self.encoder.token_embedding.weight.new_full((1, self.n_positions), -1, dtype=torch.int64)
        vector, states = self._read(nothing, nothing >= 0)
        return Both(vector.expand(n, -1), States(states.rows.expand(n, -1, -1), None))

    def _read(self, ids: Tensor, mask: Tensor) -> Both:
        vector, states = self.encoder(ids, mask)
        return Both(vector, States(self.embed(states), None))
