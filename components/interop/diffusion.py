"""Files of DiT, with its averaged weights apart, and of LDM, with a shadow inside; what ADM's share with them."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from components.errors import WeightsError
from components.generators.config import GeneratorData
from components.interop.layout import Imported, Layout, Tensors, depth_of, heads_of, side_of
from components.interop.shadowed import NETWORK, SCHEDULE, ShadowedLayout, square_target
from components.interop.unets import unet_sizes
from components.weights import Tables

_LIVE, _AVERAGED = "model", "model_ema"
_PROJECT, _NULL = "conditioner.representation.project.", "conditioner.representation.null"
_LINEAR = {"kind": "linear", "n_times": 1000}
ANCESTRAL = {
    "kind": "diffusion",
    "sampler": "ancestral",
    "steps": 250,
    "spacing": "linspace",
    "eta": 0.0,
    "guidance": 0.0,
}
_DIT_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}


class ConditionedLayout(Layout):
    """A network under its own names, and a linear map of the representation. Imports the averaged weights."""

    tables = ("", _AVERAGED, "state_dict", _LIVE)
    ours: ClassVar[str]
    """Prefix of the network's names in our module."""
    project: ClassVar[str]
    """The linear map in the file."""
    null: ClassVar[str | None]
    """The learned null in the file, if the reference has one."""
    unread: ClassVar[tuple[str, ...]] = ()
    """Names that no forward pass reads."""

    def live(self, tables: Tables) -> dict[str, Tensor]:
        return dict(tables[_LIVE]) if _AVERAGED in tables and _LIVE in tables else {}

    def imported(self, tensors: Tensors) -> Imported:
        special = {f"{self.project}.weight", f"{self.project}.bias", self.null, *self.unread}
        weights = {f"{self.ours}{name}": t for name, t in tensors.items() if name not in special}
        weights |= {f"{_PROJECT}{part}": tensors[f"{self.project}.{part}"] for part in ("weight", "bias")}
        null = tensors.get(self.null) if self.null is not None else None
        weights[_NULL] = torch.zeros(1, weights[f"{_PROJECT}weight"].shape[1]) if null is None else null
        weights |= identity_scale(self.channels(tensors))
        return Imported(weights, {name: tensors[name] for name in self.unread if name in tensors})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        if f"{_PROJECT}weight" not in weights:
            raise WeightsError(
                f"only a {self.kind} that is conditioned on representations has the reference's layout",
                expected="pixels.model.conditions: [{kind: representation, …}]",
            )
        network = {name.removeprefix(self.ours): t for name, t in weights.items() if name.startswith(self.ours)}
        network |= {f"{self.project}.{part}": weights[f"{_PROJECT}{part}"] for part in ("weight", "bias")}
        return self.filled(network) | dict(kept) | network | ({self.null: weights[_NULL]} if self.null else {})

    def sampling(self, tensors: Tensors) -> dict[str, Any]:  # noqa: ARG002
        return dict(ANCESTRAL)

    def may_lack(self, name: str) -> bool:
        return name == self.null

    def channels(self, tensors: Tensors) -> int:
        """Channels of a target."""
        raise NotImplementedError

    def filled(self, network: Tensors) -> dict[str, Tensor]:  # noqa: ARG002
        """What no forward pass reads, as the reference initializes it."""
        return {}

    def diffusion(self, tensors: Tensors, c_out: int) -> dict[str, Any]:
        """The facts that do not depend on the network."""
        drop_prob = 0.1 if self.null in tensors else 0.0
        return {
            "conditions": [{"kind": "representation", "port": "vector", "drop_prob": drop_prob, "project": True}],
            "schedule": _LINEAR,
            "prediction": "eps",
            "min_snr": None,
            "variance": "learned" if c_out == 2 * self.channels(tensors) else "fixed",
            "latents": "as_stored",
        }


class DitLayout(ConditionedLayout):
    """DiT; the label table is computed and ignored.

    The unconditional one adds its only label to the time embedding, so that row goes into a bias of ours; its map of
    representations is there, but as it was initialized, with a bias of zeros, and is kept aside.
    """

    kind = "dit"
    ours, project, null, unread = "net.", "rep_embedder", "fake_latent", ("y_embedder.embedding_table.weight",)
    time_bias = "t_embedder.mlp.2.bias"

    def imported(self, tensors: Tensors) -> Imported:
        if not self._unconditional(tensors):
            return super().imported(tensors)
        beside = self.beside(tensors)
        weights = {f"{self.ours}{name}": t for name, t in tensors.items() if name not in beside}
        bias = tensors[self.time_bias]
        weights[f"{self.ours}{self.time_bias}"] = bias + beside[self.unread[0]][0]
        return Imported(weights | identity_scale(self.channels(tensors)), beside | {self.time_bias: bias})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        if f"{_PROJECT}weight" in weights or self.unread[0] not in kept:
            return super().exported(weights, kept)
        network = {name.removeprefix(self.ours): t for name, t in weights.items() if name.startswith(self.ours)}
        bias, row = network[self.time_bias], kept[self.unread[0]][0]
        if not bias.is_meta:
            before = kept.get(self.time_bias)
            same = before is not None and torch.equal(before + row, bias)
            network[self.time_bias] = before if before is not None and same else bias - row
        return {**kept, **network}

    def beside(self, tensors: Tensors) -> dict[str, Tensor]:
        aside = (f"{self.project}.", *self.unread)
        return {n: t for n, t in tensors.items() if n.startswith(aside)} if self._unconditional(tensors) else {}

    def check(self, tensors: Tensors, weights: Tensors, *, source: str) -> None:
        if self._unconditional(tensors) and f"{_PROJECT}weight" in weights:
            raise WeightsError(
                f"{source} is an unconditional DiT: its map of representations was never trained",
                expected="pixels.model.conditions: []",
                fix="`rcg import-checkpoint` writes the section",
            )
        super().check(tensors, weights, source=source)

    def _unconditional(self, tensors: Tensors) -> bool:
        """Without a null, with one label, and with the zeros of an untrained bias in the map of representations."""
        bias, table = tensors.get(f"{self.project}.bias"), tensors.get(self.unread[0])
        if self.null in tensors or table is None or len(table) != 1:
            return False
        return bias is None or (not bias.is_meta and not bias.any())

    def data(self, tensors: Tensors) -> GeneratorData:
        patch = side_of(tensors, "x_embedder.proj.weight", 2)
        side = patch * math.isqrt(side_of(tensors, "pos_embed", 1))
        target = square_target("latents", self.channels(tensors), side)
        dim = 1 if self._unconditional(tensors) else side_of(tensors, f"{self.project}.weight", 1)
        return GeneratorData(target=target, dim=dim, classes=None)

    def channels(self, tensors: Tensors) -> int:
        return side_of(tensors, "x_embedder.proj.weight", 1)

    def filled(self, network: Tensors) -> dict[str, Tensor]:
        return {self.unread[0]: torch.zeros(1, side_of(network, "x_embedder.proj.weight", 0))}

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        width, patch = side_of(tensors, "x_embedder.proj.weight", 0), side_of(tensors, "x_embedder.proj.weight", 2)
        return {
            "kind": "dit",
            **self.diffusion(tensors, side_of(tensors, "final_layer.linear.weight", 0) // patch**2),
            **({"conditions": []} if self._unconditional(tensors) else {}),
            "width": width,
            "depth": depth_of(tensors, "blocks."),
            "heads": heads_of(width, _DIT_HEADS),
            "patch": patch,
            "mlp_ratio": side_of(tensors, "blocks.0.mlp.fc1.weight", 0) / width,
        }


class LdmLayout(ShadowedLayout):
    """LDM's UNet, whose context is the representation itself: nothing to project, no null."""

    kind = "ldm"
    ours = "net.unet."

    def imported(self, tensors: Tensors) -> Imported:
        found = super().imported(tensors)
        dim = side_of(tensors, self._context(tensors), 1)
        scale = identity_scale(side_of(tensors, f"{NETWORK}input_blocks.0.0.weight", 1))
        return Imported(found.weights | scale | {_NULL: torch.zeros(1, dim)}, found.kept)

    def tolerates(self, name: str) -> bool:
        return not name.startswith((NETWORK, "model_ema."))

    def may_lack(self, name: str) -> bool:
        return self.tolerates(name)

    def sampling(self, tensors: Tensors) -> dict[str, Any]:  # noqa: ARG002
        return {**ANCESTRAL, "sampler": "ddim", "steps": 200, "spacing": "reference", "eta": 1.0}

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        return {
            "kind": "ldm",
            "conditions": [{"kind": "representation", "port": "vector", "drop_prob": 0.0, "project": False}],
            "schedule": SCHEDULE.model_dump(),
            "prediction": "eps",
            "min_snr": None,
            "variance": "fixed",
            "latents": "as_stored",
            **unet_sizes(tensors, NETWORK, side=32),
            "heads": {"width": 32},
            "context_dim": side_of(tensors, self._context(tensors), 1),
        }

    def data(self, tensors: Tensors) -> GeneratorData:
        target = square_target("latents", side_of(tensors, f"{NETWORK}input_blocks.0.0.weight", 1), 32)
        return GeneratorData(target=target, dim=side_of(tensors, self._context(tensors), 1), classes=None)

    @staticmethod
    def _context(tensors: Tensors) -> str:
        return next((name for name in tensors if name.endswith("attn2.to_v.weight")), "attn2.to_v.weight")


def identity_scale(channels: int) -> dict[str, Tensor]:
    """Our generators' statistics of the target: the reference takes latents and pixels as they are."""
    return {"mean": torch.zeros(channels, 1, 1), "std": torch.ones(channels, 1, 1)}
