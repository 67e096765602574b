"""What a codec is and how a VQGAN is fitted: one config per kind, and their union, which is the registry.

`build()` imports the module of the kind: a config is checked without torch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from components.config import Config
from components.target import TargetSpec
from components.weights_file import WeightsFile

if TYPE_CHECKING:
    from components.codecs.kl import Kl
    from components.codecs.none import NoneCodec
    from components.codecs.vq_f8 import VqF8
    from components.codecs.vqgan import Vqgan

RGB = tuple[float, float, float]


def check_levels(px: int, width: int, multipliers: Sequence[int], groups: int) -> None:
    """Raises: ValueError, for a config's validator, when an autoencoder of these levels cannot be built."""
    factor = 2 ** (len(multipliers) - 1)
    if px % factor:
        raise ValueError(f"px is {px}, which {len(multipliers)} levels cannot halve; use a multiple of {factor}")
    if bad := [m for m in multipliers if width * m % groups]:
        raise ValueError(f"width {width} x {bad[0]} does not split into {groups} groups; lower groups")


class NoneConfig(Config):
    """Targets are the pixels, one byte per channel."""

    kind: Literal["none"]
    channels: Literal[1, 3]
    """1: gray, 3: RGB."""
    px: int = Field(ge=1)
    """Side of the image."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="none", channels=3, px=8)

    def build(self) -> "NoneCodec":
        from components.codecs.none import NoneCodec

        return NoneCodec(self)


class VqganConfig(Config):
    """As published: width 128, multipliers 1 1 2 2 4, 2 blocks, 1024 codes of 256; 54,515,587 parameters."""

    kind: Literal["vqgan"]
    px: int = Field(ge=1)
    """Side of the image; a multiple of 2^(number of multipliers - 1)."""
    width: int = Field(ge=1)
    """Channels that the multipliers multiply."""
    multipliers: tuple[int, ...] = Field(min_length=1)
    """Channels per level, as multiples of width; each level after the first halves the resolution."""
    n_blocks: int = Field(ge=1)
    """Residual blocks per level, in encoder and decoder alike."""
    groups: int = Field(ge=1)
    """Groups of every GroupNorm; divides all widths."""
    n_codes: int = Field(ge=2)
    """Entries of the codebook."""
    code_dim: int = Field(ge=1)
    """Dimension of an entry."""
    shortcut: Literal["branch", "input"]
    """What the 1x1 shortcut reads where channels change: the block's branch (as published) or its input."""
    space: Literal["tokens", "latents"]
    """What is cached: tokens (for mage), or latents, the encoder's output, which decoding quantizes (for dit)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_levels(self.px, self.width, self.multipliers, self.groups)
        return self

    @property
    def side(self) -> int:
        """Side of the token grid."""
        return self.px >> (len(self.multipliers) - 1)

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="vqgan",
            px=8,
            width=4,
            multipliers=(1, 2),
            n_blocks=1,
            groups=2,
            n_codes=8,
            code_dim=4,
            shortcut="branch",
            space="tokens",
        )

    def build(self) -> "Vqgan":
        from components.codecs.vqgan import Vqgan

        return Vqgan(self)


class AutoencoderConfig(Config):
    """Shape of the network."""

    px: int = Field(ge=1)
    """Side of the image; a multiple of 2^(number of multipliers - 1)."""
    width: int = Field(ge=1)
    """Channels that the multipliers multiply (published: 128)."""
    multipliers: tuple[int, ...] = Field(min_length=1)
    """Channels per level, as multiples of width; each level after the first halves the resolution."""
    n_blocks: int = Field(ge=1)
    """Residual blocks per level of the encoder; the decoder has one more (published: 2)."""
    attention_levels: tuple[int, ...]
    """Levels, from 0, with attention after each block (kl: none; vq-f8: 3)."""
    groups: int = Field(ge=1)
    """Groups of every GroupNorm; divides all widths (published: 32)."""
    latent_dim: int = Field(ge=1)
    """Channels of a latent (published: 4)."""
    dtype: Literal["float16", "float32"]
    """In which latents are cached."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_levels(self.px, self.width, self.multipliers, self.groups)
        if bad := [i for i in self.attention_levels if not 0 <= i < len(self.multipliers)]:
            raise ValueError(f"attention_levels names level {bad[0]}; there are 0 … {len(self.multipliers) - 1}")
        return self

    @property
    def space(self) -> Literal["latents"]:
        return "latents"

    @property
    def side(self) -> int:
        """Side of the latent."""
        return self.px >> (len(self.multipliers) - 1)

    def target(self, channels: int) -> TargetSpec:
        """What is cached: latents of so many channels."""
        return TargetSpec(
            space=self.space,
            shape=(channels, self.side, self.side),
            dtype=self.dtype,
            n_codes=None,
            image_px=self.px,
        )

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.width * m for m in self.multipliers]


class KlConfig(AutoencoderConfig):
    """As published: width 128, multipliers 1 2 4 4, 2 blocks, latents 4 x 32 x 32 at 256 px; 83,653,863 parameters."""

    kind: Literal["kl"]
    scale: float
    """Factor of the cached latents, which gives them a variance near 1 (Stable Diffusion: 0.18215)."""
    posterior: Literal["mode", "sample"]
    """What of the posterior is cached: its mean, or a draw whose noise is a function of the picture."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="kl",
            px=8,
            width=4,
            multipliers=(1, 2),
            n_blocks=1,
            attention_levels=(),
            groups=2,
            latent_dim=2,
            scale=0.5,
            posterior="mode",
            dtype="float32",
        )

    def build(self) -> "Kl":
        from components.codecs.kl import Kl

        return Kl(self)


class VqF8Config(AutoencoderConfig):
    """As published: width 128, multipliers 1 2 2 4, 2 blocks, attention at level 3, 16,384 codes of 4."""

    kind: Literal["vq-f8"]
    n_codes: int = Field(ge=2)
    """Entries of the codebook (published: 16384)."""
    code_dim: int = Field(ge=1)
    """Channels of what is cached, and dimension of an entry (published: 4)."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="vq-f8",
            px=8,
            width=4,
            multipliers=(1, 2),
            n_blocks=1,
            attention_levels=(1,),
            groups=2,
            latent_dim=3,
            n_codes=8,
            code_dim=2,
            dtype="float32",
        )

    def build(self) -> "VqF8":
        from components.codecs.vq_f8 import VqF8

        return VqF8(self)


CodecConfig = Annotated[NoneConfig | VqganConfig | KlConfig | VqF8Config, Field(discriminator="kind")]


class AdversarialConfig(Config):
    """The discriminator and its part in the loss."""

    weight: float = Field(gt=0)
    """Factor of the adaptive weight (VQGAN: 0.8)."""
    start_step: int = Field(ge=0)
    """Steps before which neither side of the game is played."""
    width: int = Field(ge=8, multiple_of=8)
    """Channels after the first convolution (paper: 64)."""
    depth: int = Field(ge=1)
    """Convolutions of stride 2 (paper: 3): a judgment sees about 9 x 2^depth pixels."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(weight=0.8, start_step=0, width=8, depth=1)


class PerceptualNetwork(Config):
    """What every feature network has."""

    weight: float = Field(gt=0)
    """Weight of the distance in the loss (VQGAN: 1)."""
    weights: WeightsFile
    """The network's file: its features change the codec's bits."""
    mean: RGB
    """Subtracted from RGB in [0, 1]."""
    std: RGB
    """Divides RGB after the mean is subtracted."""


class VitFeatures(PerceptualNetwork):
    """Tokens of a ViT with timm's names: MoCo v3, DINO, DeiT, or weights.safetensors of one's own encoder artifact."""

    kind: Literal["vit"]
    heads: int = Field(ge=1)
    """Attention heads, which no shape tells."""
    layers: tuple[int, ...] = Field(min_length=1)
    """Blocks, from 0, after which tokens are compared."""


class TimmFeatures(PerceptualNetwork):
    """Feature maps of a timm network, e.g. vgg16 or resnet50."""

    kind: Literal["timm"]
    name: str = Field(min_length=1)
    """timm's model name without a pretrained tag."""
    layers: tuple[int, ...] = Field(min_length=1)
    """Indices of the feature maps that timm offers for it (features_only)."""


PerceptualConfig = Annotated[VitFeatures | TimmFeatures, Field(discriminator="kind")]


class VqganObjective(Config):
    """What a VQGAN is fitted for."""

    l1: float = Field(ge=0)
    """Weight of the mean absolute error of the pixels."""
    l2: float = Field(ge=0)
    """Weight of their mean squared error."""
    commitment: float = Field(ge=0)
    """Weight of the mean squared distance between encoder outputs and their codes."""
    codebook_decay: float = Field(ge=0, lt=1)
    """Decay per step of the moving averages that the codebook consists of."""
    free_steps: int = Field(ge=0)
    """Steps at the start that leave out the codebook; the next one fills it with encoder outputs."""
    restart_below: float = Field(ge=0, lt=1)
    """A code that is used less than this share of the average use is moved onto an encoder output of the batch."""
    perceptual: PerceptualConfig | None
    """A frozen network in whose features pictures are compared as well; null: pixels alone."""
    adversarial: AdversarialConfig | None
    """A discriminator that keeps textures sharp; null: none."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            l1=1.0,
            l2=1.0,
            commitment=0.25,
            codebook_decay=0.9,
            free_steps=1,
            restart_below=0.1,
            perceptual=None,
            adversarial=None,
        )
