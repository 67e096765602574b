"""Configs of guides: what is recognized in noisy samples, and of which generator. Imports without torch."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from components.config import Config, check_divides
from components.diffusion.schedule import ScheduleConfig
from components.errors import ConfigError
from components.fields import find_field
from components.generators.config import GeneratorData
from components.pixels.unet import HeadWidth, UNetSizes
from components.target import EventSpec

if TYPE_CHECKING:
    from components.guides.base import NoiseAware


class BaseGuideConfig(Config):
    """What every guide says, besides its network."""

    guides: ClassVar[Literal["rdm", "pixels"]]
    """The generator whose noisy samples it recognizes."""
    schedule: ScheduleConfig
    """Forward process of the generator that it guides; must be equal to it."""
    input: Literal["scaled", "as_is"] = Field(default="scaled", exclude_if=lambda value: value == "scaled")
    """What its network reads. scaled: sqrt(ab) x_t, so that its pull fades with the signal; as_is: x_t (ADM)."""

    recognizes: Literal["class", "representation", "text"] = Field(
        default="class", exclude_if=lambda value: value == "class"
    )
    """What it leads to. class; text: what a prompt says, by the embeddings of stage `text`; representation: how the
    encoder sees a picture."""

    def n_outputs(self, data: GeneratorData) -> int:
        """Numbers that its network puts out. Raises: ConfigError for what the cache has not."""
        if self.recognizes == "class":
            return self.n_classes(data)
        return data.dim if self.recognizes == "representation" else find_field(data.fields, "text").size

    def guide(self) -> "type[NoiseAware]":
        """What its network becomes part of."""
        from components.guides.classifier import Classifier
        from components.guides.vectors import RepresentationGuide, TextGuide

        return {"class": Classifier, "representation": RepresentationGuide, "text": TextGuide}[self.recognizes]

    def n_classes(self, data: GeneratorData) -> int:
        """Raises: ConfigError for fewer than two."""
        n = len(data.classes or ())
        if n < 2:
            raise ConfigError(
                "a guide tells classes apart, but the collection has too few",
                got=f"{n} class(es)",
                expected="2 or more",
                fix="label the collection (metadata.csv or one folder per class), or set guide: null",
            )
        return n


class MlpGuideConfig(BaseGuideConfig):
    """A residual MLP on noisy representations, of the RDM's build: guides the RDM."""

    guides = "rdm"
    kind: Literal["residual_mlp"]
    width: int = Field(ge=2, multiple_of=2)
    """Width of the residual blocks."""
    depth: int = Field(ge=1)
    """Number of residual blocks."""
    time_dim: int = Field(ge=1)
    """Width of the time embedding."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="residual_mlp", width=16, depth=1, time_dim=8, schedule=ScheduleConfig.tiny())

    @model_validator(mode="after")
    def _is_no_circle(self) -> Self:
        if self.recognizes == "representation":
            raise ValueError("a guide of the RDM cannot lead to what the RDM makes; set recognizes: class or text")
        return self

    def build(self, data: GeneratorData) -> "NoiseAware":
        """Raises: ConfigError for fewer than two classes, or without captions."""
        from components.rdm.denoiser import ResidualMlp

        network = ResidualMlp(
            dim=data.dim,
            c_out=self.n_outputs(data),
            width=self.width,
            depth=self.depth,
            time_dim=self.time_dim,
            context_dim=None,
        )
        spec = EventSpec(space="representations", shape=(data.dim,), dtype="float32", n_codes=None)
        return self.guide()(self, data, spec=spec, network=network, standardize=False)


class UNetGuideConfig(UNetSizes, BaseGuideConfig):
    """ADM's classifier, the encoder half of its UNet pooled by attention, on noisy targets: guides `pixels`."""

    guides = "pixels"
    section = "guide"
    kind: Literal["unet_encoder"]
    latents: Literal["standardized", "as_stored"]
    """Scale of latents, as of the generator that it guides."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="unet_encoder",
            width=8,
            multipliers=(1, 2),
            n_blocks=1,
            attention_sides=(4,),
            heads=HeadWidth(width=4),
            groups=4,
            schedule=ScheduleConfig(kind="linear", n_times=1000),
            latents="as_stored",
        )

    def build(self, data: GeneratorData) -> "NoiseAware":
        """Raises: ConfigError for too few classes, no captions, tokens, or a target that the network cannot take."""
        from components.guides.networks import PooledUNet

        spec = data.target
        if spec.space == "tokens":
            fix = "set guide: null, or use a codec without tokens and a diffusion generator"
            raise ConfigError("a guide reads noisy pixels or latents, but the codec stores tokens", fix=fix)
        channels, side, width = spec.shape
        if side != width:
            raise ConfigError("a guide needs a square target", got=spec.shape)
        self.check_side(side)
        shape = self.shape(channels, side, c_out=self.n_outputs(data), family="adm")
        standardize = spec.space == "latents" and self.latents == "standardized"
        return self.guide()(self, data, spec=spec, network=PooledUNet(shape, side), standardize=standardize)


class VitGuideConfig(BaseGuideConfig):
    """A vision transformer on noisy pixels, as GLIDE's noise-aware CLIP: guides `pixels`."""

    guides = "pixels"
    kind: Literal["vit"]
    patch: int = Field(ge=1)
    """Pixels on a patch's side (GLIDE: 4)."""
    width: int = Field(ge=2)
    """Width of the transformer (768)."""
    depth: int = Field(ge=1)
    """Number of blocks (12)."""
    heads: int = Field(ge=1)
    """Attention heads (12); divides width."""
    mlp_ratio: float = Field(gt=0)
    """Hidden width of each block's MLP over its width (4)."""
    mean: tuple[float, ...]
    """By channel, of images in [0, 1]: subtracted first (GLIDE: CLIP's)."""
    std: tuple[float, ...]
    """By channel: divided by then."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        check_divides("heads", self.heads, "width", self.width)
        if len(self.mean) != len(self.std) or not all(std > 0 for std in self.std):
            raise ValueError("std has a positive number for each of mean")
        return self

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="vit",
            patch=4,
            width=8,
            depth=1,
            heads=2,
            mlp_ratio=2.0,
            schedule=ScheduleConfig.tiny(),
            mean=(0.5,),
            std=(0.5,),
        )

    def check_side(self, side: int) -> None:
        """Raises: ConfigError for images that do not split into patches."""
        if side % self.patch:
            fix = "choose guide.model.patch among the divisors of the side"
            raise ConfigError("images do not split into patches", got=f"side {side}, patch {self.patch}", fix=fix)

    def build(self, data: GeneratorData) -> "NoiseAware":
        """Raises: ConfigError for what is no square of pixels, other channels, too few classes, or no captions."""
        from components.guides.vit import TimedViT

        spec = data.target
        if spec.space != "pixels" or spec.shape[0] != len(self.mean) or spec.shape[1] != spec.shape[2]:
            raise ConfigError(
                "a guide of kind vit reads square images",
                got=f"{spec.space} of shape {spec.shape}",
                expected=f"pixels of {len(self.mean)} channel(s)",
                fix="set codec.model.kind: none, and as many numbers in guide.model.mean and std as channels",
            )
        self.check_side(spec.shape[1])
        sizes = self.model_dump(include={"patch", "width", "depth", "heads", "mlp_ratio", "mean", "std"})
        network = TimedViT(**sizes, side=spec.shape[1], n_times=self.schedule.n_times, c_out=self.n_outputs(data))
        return self.guide()(self, data, spec=spec, network=network, standardize=False)


GUIDED = {"residual_mlp": "rdm", "unet_encoder": "pixels", "vit": "pixels"}
"""The generator that a kind of guide guides."""
PixelGuideConfig = UNetGuideConfig | VitGuideConfig
AnyGuide = MlpGuideConfig | PixelGuideConfig
GuideConfig = Annotated[AnyGuide, Field(discriminator="kind")]
