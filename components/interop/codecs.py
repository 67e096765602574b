"""The layouts that stage `codec` imports: the codecs carry the names of their published files."""

from typing import Any, ClassVar

from torch import Tensor

from components.interop.layout import Imported, Layout, Tensors, depth_of, side_of


class SameNames(Layout):
    """A module whose names are the file's own; what the file has besides is kept."""

    unread: ClassVar[tuple[str, ...]] = ()
    """Prefixes of names that no forward pass reads."""

    def imported(self, tensors: Tensors) -> Imported:
        weights = {name: t for name, t in tensors.items() if not self.tolerates(name)}
        return Imported(weights, {name: t for name, t in tensors.items() if name not in weights})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        return dict(kept) | dict(weights)

    def tolerates(self, name: str) -> bool:
        return name.startswith(self.unread)


class VqganLayout(SameNames):
    """MaskGIT's VQGAN as converted from JAX: 168 tensors, no discriminator."""

    kind = "vqgan"

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        n_levels = depth_of(tensors, "encoder.down.")
        widths = [side_of(tensors, f"encoder.down.{i}.block.0.conv1.weight", 0) for i in range(n_levels)]
        width = side_of(tensors, "encoder.conv_in.weight", 0)
        return {
            "kind": "vqgan",
            "px": 256,
            "width": width,
            "multipliers": [w // width for w in widths],
            "n_blocks": depth_of(tensors, "encoder.down.0.block."),
            "groups": 32,
            "n_codes": side_of(tensors, "quantize.embedding.weight", 0),
            "code_dim": side_of(tensors, "quantize.embedding.weight", 1),
            "shortcut": "branch",
            "space": "tokens",
        }


LAYOUTS: tuple[Layout, ...] = (VqganLayout(),)
