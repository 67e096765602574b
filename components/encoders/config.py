"""What an encoder is and how it is trained: one config per kind, and their union, which is the registry.

`build()` imports the module of the kind: a config is checked without torch.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from components.config import Config, added, check_divides
from components.images.config import AugmentConfig, Crop, Noise
from components.weights_file import WeightsFile

if TYPE_CHECKING:
    from components.encoders.base import FrozenEncoder

RGB = tuple[float, float, float]


class PcaConfig(Config):
    """Representations along the principal axes of the training pictures' own, the largest first."""

    kind: Literal["pca"]
    dim: int = Field(ge=1)
    """Number of axes."""
    whiten: bool
    """Scale every axis to variance 1; false: all by one number, so that their mean variance is 1."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="pca", dim=2, whiten=True)


class VitConfig(Config, ABC):
    """A ViT with a head."""

    weights: WeightsFile | None
    """File to import; null: trained on the collection (mocov3 alone), or saved beside the config."""
    input_px: int = Field(ge=1)
    """Side that images are resized to (published: 224)."""
    patch_px: int = Field(ge=1)
    """Side of a patch; divides input_px."""
    width: int = Field(ge=4, multiple_of=4)
    """Width of the transformer; a multiple of heads (ViT-B: 768)."""
    depth: int = Field(ge=1)
    """Number of transformer blocks (ViT-B: 12)."""
    heads: int = Field(ge=1)
    """Attention heads (ViT-B: 12; MoCo v3's ViT-S too)."""
    mlp_ratio: float = Field(gt=0)
    """Hidden width of each block's MLP over its width (published: 4)."""
    output: Literal["projector", "cls"]
    """What is the representation: the head's output or the [CLS] token after the last norm, which drops the head."""
    mean: RGB
    """Subtracted from RGB in [0, 1]."""
    std: RGB
    """Divides RGB after the mean is subtracted."""
    reduce: PcaConfig | None = added()
    """What generators see of the representation; null: all of it. Fitted on the training pictures of probe."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        check_divides("heads", self.heads, "width", self.width)
        check_divides("patch_px", self.patch_px, "input_px", self.input_px)
        return self

    @property
    @abstractmethod
    def head_dim(self) -> int:
        """Width of the head's output."""

    @property
    def dim(self) -> int:
        return self.head_dim if self.output == "projector" else self.width

    @abstractmethod
    def build(self) -> "FrozenEncoder":
        """The encoder, with weights still to be loaded."""

    @classmethod
    def _small(cls, kind: str, *, output: str = "projector", **own: Any) -> Self:
        sizes = {"input_px": 8, "patch_px": 4, "width": 16, "depth": 1, "heads": 2, "mlp_ratio": 2.0}
        colors = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        return cls.model_validate({"kind": kind, "weights": None, "output": output, **sizes, **colors, **own})


class MoCoV3Config(VitConfig):
    """A MoCo v3 ViT, trained on the collection or imported."""

    kind: Literal["mocov3"]
    projector_hidden: int = Field(ge=1)
    """Width of the projector's two hidden layers."""
    projector_dim: int = Field(ge=2)
    """Width of the projector's output."""
    freeze_patches: bool
    """Keep the patch projection at its random initial values during training (stop_grad_conv1)."""

    @property
    def head_dim(self) -> int:
        return self.projector_dim

    def build(self) -> "FrozenEncoder":
        from components.encoders.mocov3 import build

        return build(self)

    @classmethod
    def tiny(cls) -> Self:
        return cls._small("mocov3", projector_hidden=24, projector_dim=8, freeze_patches=True)


class DinoConfig(VitConfig):
    """The teacher of a DINO or iBOT training.

    Differs: as in the RCG reference, the head ends after its MLP: neither L2 normalization nor the weight-normalized
    last layer is applied.
    """

    kind: Literal["dino", "ibot"]
    head_hidden: int = Field(ge=1)
    """Width of the head's two hidden layers (published: 2048)."""
    bottleneck: int = Field(ge=2)
    """Width of the head's output (published: 256)."""

    @property
    def head_dim(self) -> int:
        return self.bottleneck

    def build(self) -> "FrozenEncoder":
        from components.encoders.dino import build

        return build(self)

    @classmethod
    def tiny(cls) -> Self:
        return cls._small("dino", head_hidden=24, bottleneck=8)


class DeitConfig(VitConfig):
    """A DeiT without distillation token. With output "projector" the representation is its classifier's logits."""

    kind: Literal["deit"]
    n_classes: int = Field(ge=2)
    """Outputs of the classifier (published: 1000)."""

    @property
    def head_dim(self) -> int:
        return self.n_classes

    def build(self) -> "FrozenEncoder":
        from components.encoders.deit import build

        return build(self)

    @classmethod
    def tiny(cls) -> Self:
        return cls._small("deit", output="cls", n_classes=10)


class ClipConfig(VitConfig):
    """CLIP's image tower. With output "projector" the representation is the image in the space that texts share."""

    kind: Literal["clip"]
    joint_dim: int = Field(ge=2)
    """Width of the space of images and texts (ViT-B: 512)."""
    quick_gelu: bool
    """The activation is x sigmoid(1.702 x), as in OpenAI's files; false: the exact GELU, as in most of open_clip's."""

    @property
    def head_dim(self) -> int:
        return self.joint_dim

    def build(self) -> "FrozenEncoder":
        from components.encoders.clip import build

        return build(self)

    @classmethod
    def tiny(cls) -> Self:
        return cls._small("clip", joint_dim=6, quick_gelu=True)


class TimmConfig(Config):
    """A timm model with imported weights."""

    kind: Literal["timm"]
    name: str = Field(min_length=1)
    """timm's model name without a pretrained tag, e.g. vit_small_patch14_dinov2."""
    weights: WeightsFile | None
    """The weights file, as timm saves it (null only in a saved encoder, whose weights lie beside its config)."""
    input_px: int = Field(ge=1)
    """Side that images are resized to."""
    dim: int = Field(ge=2)
    """Width of the representation."""
    output: Literal["cls", "pooled", "head"]
    """The [CLS] token after the last norm, the model's own pooled features, or its head's output."""
    resample_positions: bool
    """Stretch the file's learned positions when it was made for another image size (DINOv2: 518) than input_px."""
    mean: RGB
    """Subtracted from RGB in [0, 1]."""
    std: RGB
    """Divides RGB after the mean is subtracted."""
    reduce: PcaConfig | None = added()
    """What generators see of the representation; null: all of it. Fitted on the training pictures of probe."""

    def build(self) -> "FrozenEncoder":
        """The encoder, with weights still to be loaded. Raises: ConfigError for a name that timm does not know."""
        from components.encoders.timm import build

        return build(self)

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="timm",
            name="test_vit",
            weights=None,
            input_px=32,
            dim=64,
            output="cls",
            resample_positions=False,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )


EncoderModel = TimmConfig | MoCoV3Config | DinoConfig | DeitConfig | ClipConfig
EncoderConfig = Annotated[EncoderModel, Field(discriminator="kind")]


def width_of(model: EncoderModel) -> int:
    """Numbers in a representation as the generators see it."""
    return model.dim if model.reduce is None else model.reduce.dim


class ContrastiveConfig(Config):
    """How the MoCo v3 encoder is trained, besides the optimizer."""

    kind: Literal["contrastive"]
    temperature: Annotated[float, Field(gt=0)]
    """Of the softmax over the batch; the loss is scaled by twice this, as in the reference."""
    momentum: Annotated[float, Field(ge=0, le=1)]
    """Of the momentum encoder at the first step; it rises to 1 along a cosine."""
    predictor_hidden: Annotated[int, Field(gt=0)]
    """Width of the predictor's hidden layer."""
    views: tuple[tuple[AugmentConfig, ...], tuple[AugmentConfig, ...]]
    """The augmentations of the first and of the second view."""

    @classmethod
    def tiny(cls) -> Self:
        steps = (Crop.tiny(), Noise.tiny())
        return cls(kind="contrastive", temperature=0.2, momentum=0.9, predictor_hidden=16, views=(steps, steps))
