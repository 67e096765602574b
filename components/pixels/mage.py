"""MAGE: a masked generative transformer over the tokens of a codec. Paper: 2211.09117 (MAGE), 2312.03701 (RCG).

Imports without torch: build() imports the network.
"""

import math
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from components.conditions.config import RepresentationConfig
from components.config import check_divides
from components.errors import ConfigError
from components.generators.config import GeneratorData, MaskConfig, MaskedConfig

if TYPE_CHECKING:
    from components.generators.masked import MaskedTokens


class MageConfig(MaskedConfig):
    """The published base model is width 768, depth 12 with 12 heads, decoder depth 8 with 16 heads."""

    ports = ("vector", "sequence")
    kind: Literal["mage"]
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

    @model_validator(mode="after")
    def _divides(self) -> Self:
        check_divides("heads", self.heads, "width", self.width)
        check_divides("decoder_heads", self.decoder_heads, "width", self.width)
        return self

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="mage",
            conditions=(RepresentationConfig.tiny(),),
            width=8,
            depth=1,
            heads=2,
            decoder_depth=1,
            decoder_heads=2,
            mlp_ratio=2,
            drop_prob=0.1,
            label_smoothing=0.1,
            mask=MaskConfig.tiny(),
        )

    def build(self, data: GeneratorData) -> "MaskedTokens":
        """Raises: ConfigError unless the codec makes tokens."""
        from components.conditions.container import Conditions
        from components.generators.masked import MaskedTokens
        from components.pixels.mage_network import MageTransformer

        if data.target.space != "tokens" or data.target.n_codes is None:
            raise ConfigError(
                "mage generates tokens, but the codec does not make them",
                got=f"a codec for {data.target.space}",
                fix="set codec.model.kind: vqgan with space: tokens, or pixels.model.kind: dit",
            )
        transformer = MageTransformer(
            n_tokens=math.prod(data.target.shape),
            n_codes=data.target.n_codes,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            decoder_depth=self.decoder_depth,
            decoder_heads=self.decoder_heads,
            mlp_ratio=self.mlp_ratio,
        )
        conditions = Conditions(self.conditions, transformer, data.fields, constant=True)
        return MaskedTokens(self, data, transformer=transformer, conditions=conditions)
