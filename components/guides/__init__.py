"""Guides: noise-aware classifiers, image-text models and encoders.

To add one: a config and one member in the union GuideConfig, which is the registry.

Imports without torch: load_guide() imports it.
"""

from typing import TYPE_CHECKING, cast

from components.guides.config import AnyGuide, GuideConfig

if TYPE_CHECKING:
    from components.base import Reader
    from components.guides.base import NoiseAware

__all__ = ["AnyGuide", "GuideConfig", "load_guide"]


def load_guide(artifact: "Reader") -> "NoiseAware":
    """The trained guide of an artifact, in eval mode, without gradients of its weights."""
    from components.generators.files import load_built

    guide, _ = load_built(artifact, GuideConfig)
    return cast("NoiseAware", guide)
