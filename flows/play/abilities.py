"""What a bundle can be asked for: the page shows that, and nothing else."""

from dataclasses import dataclass

from components.bundle.bundle import Bundle
from components.bundle.system import System


@dataclass(frozen=True)
class Abilities:
    """Of one bundle."""

    plain: bool
    """Images without any condition."""
    classes: tuple[str, ...]
    """Class names that a request may give; none for a bundle that takes no class."""
    text: bool
    """Images of a text."""
    pictures: bool
    """Images like a given picture, or between two: it has an encoder, and paints representations or is led to them."""
    free: bool
    """Whether an edit has a representation, which may be the picture's own or a sampled one."""
    upscale: bool
    """Larger images."""
    guidance: bool
    """Classifier-free guidance of the pixel generator."""
    rdm_guidance: bool
    """The same of the representation generator."""
    guide: bool
    """A guide, which pulls to a class, a text or a representation."""

    @classmethod
    def of(cls, bundle: Bundle) -> "Abilities":
        system, parts = bundle.system, bundle.card.parts
        rdm = system.generators.get("rdm")
        paints = "representation" in system.pixels.conditions
        return cls(
            plain=_is_plain(system),
            classes=system.classes or (),
            text=system.reads,
            pictures="encoder" in parts and (paints or system.leads_to("representation")),
            free=paints and rdm is not None,
            upscale=system.upsampler is not None,
            guidance=system.pixels.config.can_guide,
            rdm_guidance=rdm is not None and rdm.config.can_guide,
            guide=system.guide is not None,
        )


def _is_plain(system: System) -> bool:
    """Whether what each generator cannot do without is made by those before it."""
    made: set[str] = set()
    for generator in system.generators.values():
        if not set(generator.required) <= made:
            return False
        made.add(generator.makes)
    return True
