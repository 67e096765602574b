"""The union of feature networks. Files are of one's own: nothing is fetched from a hub."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field

from components.config import Config
from components.weights_file import WeightsFile

if TYPE_CHECKING:
    from components.metrics.networks.base import FeatureNetwork

_NO_FILE = WeightsFile(uri="weights.pth", sha256="0" * 64)


class InceptionNetwork(Config):
    """The Inception of FID, of 2015, under any of the names that its file has in PyTorch."""

    kind: Literal["inception"]
    weights: WeightsFile
    """pt_inception-2015-12-05-6726825d.pth, weights-inception-2015-12-05-6726825d.pth, or inception-2015-12-05.pt's
    state dict."""

    def load(self) -> "FeatureNetwork":
        """Raises: WeightsError."""
        from components.metrics.networks.inception import load

        return load(self)

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="inception", weights=_NO_FILE)


class TimmNetwork(Config):
    """A timm model, with the size and the image statistics that timm records for it."""

    kind: Literal["timm"]
    name: str = Field(min_length=1)
    """timm's model name; with a tag, e.g. mobilenetv2_100.ra_in1k, also the tag's image statistics."""
    input_px: int | None = Field(ge=16)
    """Side at which the network sees pictures; null: timm's own. Convolutional networks see small pictures as well at
    96 as at 224, in a fifth of the time."""
    weights: WeightsFile
    """The weights file, as timm saves it."""

    def load(self) -> "FeatureNetwork":
        """Raises: WeightsError, ConfigError for a model that timm does not know."""
        from components.metrics.networks.timm import load

        return load(self)

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="timm", name="test_resnet", input_px=None, weights=_NO_FILE)


class DinoV2Network(Config):
    """DINOv2's ViT-L/14, whose [CLS] token is what FD-DINOv2 compares. Paper: 2306.04675."""

    kind: Literal["dinov2"]
    weights: WeightsFile
    """The file of timm's vit_large_patch14_dinov2.lvd142m."""

    def load(self) -> "FeatureNetwork":
        """Raises: WeightsError."""
        from components.metrics.networks.timm import load_dinov2

        return load_dinov2(self)

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="dinov2", weights=_NO_FILE)


class ClipNetwork(Config):
    """CLIP's ViT-L/14 at 336 pixels, whose image embedding is what CMMD compares. Paper: 2401.09603."""

    kind: Literal["clip"]
    weights: WeightsFile
    """The file of timm's vit_large_patch14_clip_336.openai."""

    def load(self) -> "FeatureNetwork":
        """Raises: WeightsError."""
        from components.metrics.networks.timm import load_clip

        return load_clip(self)

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="clip", weights=_NO_FILE)


ReadyNetwork = InceptionNetwork | TimmNetwork | DinoV2Network | ClipNetwork
NetworkConfig = Annotated[ReadyNetwork, Field(discriminator="kind")]
"""Networks that come from a file. One that is trained on the spot is FeatureConfig of components/metrics/config.py."""
