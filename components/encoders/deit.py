"""DeiT: a ViT trained with labels. Paper: 2012.12877."""

from typing import Literal, Self

from pydantic import Field
from torch import nn

from components.encoders.published import PublishedVit


class DeitConfig(PublishedVit):
    """A DeiT without distillation token. With output "projector" the representation is its classifier's logits."""

    kind: Literal["deit"]
    n_classes: int = Field(ge=2)
    """Outputs of the classifier (published: 1000)."""

    @property
    def head_dim(self) -> int:
        return self.n_classes

    def head(self) -> nn.Module:
        return nn.Linear(self.width, self.n_classes)

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="deit", weights=None, input_px=8, patch_px=4, width=16, depth=1, heads=2, mlp_ratio=2.0,
            n_classes=10, output="cls", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
        )  # fmt: skip
