"""Files of GLIDE (filtered): the generator of 64 pixels, its upsampler to 256, and both as inpainters.

Paper: 2112.10741; what shapes do not tell: the defaults of glide-text2im @69b5307.
"""

from typing import Any

import torch
from torch import Tensor

from components.errors import WeightsError
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.interop.diffusion import identity_scale
from components.interop.layout import Imported, Layout, Tensors, depth_of, side_of
from components.interop.shadowed import square_target
from components.interop.unets import unet_sizes
from components.target import LOW_RES

_NETWORK, _READER = "net.unet.", "conditioner.text_transformer.encoder."
_TEXT = (
    *("positional_embedding", "padding_embedding", "token_embedding.", "transformer.", "final_ln."),
    "transformer_proj.",
)
"""Beginnings of the names of the text transformer."""
_INPUT = "input_blocks.0.0.weight"
_HEAD_WIDTH = 64
_SIDE, _LARGE = 64, 256
_DROP_PROB = 0.2
"""Share of captions that fine-tuning replaces by the empty one."""
_SAMPLING = {"kind": "diffusion", "eta": 0.0, "guidance": 0.0}


class GlideLayout(Layout):
    """A UNet and the text transformer that was trained along with it; an inpainter reads the known part, too.

    Rows of qkv and of the text's keys and values are per head, in both networks.
    """

    kind = "glide"
    side, schedule, small = _SIDE, "cosine", None

    def imported(self, tensors: Tensors) -> Imported:
        weights = {f"{_READER if name.startswith(_TEXT) else _NETWORK}{name}": t for name, t in tensors.items()}
        return Imported(weights | identity_scale(self.channels(tensors)), {})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        found = {
            name.removeprefix(prefix): t
            for prefix in (_NETWORK, _READER)
            for name, t in weights.items()
            if name.startswith(prefix)
        }
        strange = [name for name in weights if name.startswith("conditioner.") and not name.startswith(_READER)]
        if strange or "transformer_proj.weight" not in found:
            raise WeightsError(
                f"a {self.kind} file has a text transformer, and a place for no further condition",
                got=strange[0] if strange else "no condition of kind text_transformer",
                expected="one of kind text_transformer with project: false; masked_image beside it",
            )
        return dict(kept) | found

    def channels(self, tensors: Tensors) -> int:
        """Of a target; the network puts out as many for the variance."""
        return side_of(tensors, "out.2.weight", 0) // 2

    def inpaints(self, tensors: Tensors) -> bool:
        """Whether the first convolution reads a mask."""
        return side_of(tensors, _INPUT, 1) % self.channels(tensors) == 1

    def data(self, tensors: Tensors) -> GeneratorData:
        channels, n_positions = self.channels(tensors), side_of(tensors, "positional_embedding", 0)
        n_ids, choices = side_of(tensors, "token_embedding.weight", 0), {"ragged": True, "nullable": True}
        ids = FieldSpec(name="ids", dtype="int32", shape=(n_positions,), n_ids=n_ids, choices=True, **choices)
        target = square_target("pixels", channels, self.side)
        return GeneratorData(target=target, dim=1, classes=None, more=(ids,))

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        width = side_of(tensors, "positional_embedding", 1)
        reader = {
            "kind": "text_transformer",
            "port": "vector_and_sequence",
            "drop_prob": _DROP_PROB,
            "missing": "null",
            "width": width,
            "depth": depth_of(tensors, "transformer.resblocks."),
            "heads": max(1, width // _HEAD_WIDTH),
            "project": False,
        }
        known = [{"kind": "masked_image", "port": "spatial", "drop_prob": 0.0}] if self.inpaints(tensors) else []
        return {
            "kind": "adm",
            "conditions": [reader, *known],
            **unet_sizes(tensors, side=self.side),
            "heads": {"width": _HEAD_WIDTH},
            "qkv_order": "per_head",
            "sequence_dim": width,
            "schedule": {"kind": self.schedule, "n_times": 1000},
            "prediction": "eps",
            "min_snr": None,
            "variance": "learned",
            "latents": "as_stored",
        }

    def sampling(self, tensors: Tensors) -> dict[str, Any]:
        """100 steps; scale 3 for texts and 5 for inpainting, which here is 2 and 4."""
        guidance = 4.0 if self.inpaints(tensors) else 2.0
        return {**_SAMPLING, "sampler": "ancestral", "steps": 100, "spacing": "linspace", "guidance": guidance}

    def note(self, tensors: Tensors) -> str:
        n = side_of(tensors, "positional_embedding", 0)
        bpe = f"{{file: {{uri: gpt2/tokenizer.json, sha256: …}}, n_ids: null, max_tokens: {n}}}"
        return f"it reads the tokens of gpt2, which text.bpe has to give: {bpe}; then: rcg plan"


class GlideUpsamplerLayout(GlideLayout):
    """GLIDE's upsampler: a further input is the small image, resized, behind what is known.

    Ours sees the level of the noise on it as one channel more: of weight zero, as GLIDE has no noise there.
    """

    kind = "glide-upsampler"
    side, schedule = _LARGE, "linear"

    def imported(self, tensors: Tensors) -> Imported:
        found = super().imported(tensors)
        weight = tensors[_INPUT]
        level = weight.new_zeros(weight.shape[0], 1, *weight.shape[2:])
        return Imported({**found.weights, f"{_NETWORK}{_INPUT}": torch.cat([weight, level], 1)}, found.kept)

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        found = super().exported(weights, kept)
        weight = found[_INPUT]
        if not weight.is_meta and bool(weight[:, -1].any()):
            raise WeightsError(
                "a file of GLIDE's upsampler has no place for the level of the noise on the small image",
                got=f"{_INPUT} with weights of that channel",
                expected="an upsampler that was imported from such a file, and not trained with noise",
            )
        return {**found, _INPUT: weight[:, :-1].contiguous()}

    def check(self, tensors: Tensors, weights: Tensors, *, source: str) -> None:
        name = f"{_NETWORK}{_INPUT}"
        blank = {name: torch.zeros_like(weights[name])} if name in weights else {}
        super().check(tensors, {**weights, **blank}, source=source)

    def data(self, tensors: Tensors) -> GeneratorData:
        found = super().data(tensors)
        shape = (self.channels(tensors), _SIDE, _SIDE)
        low_res = FieldSpec(name=LOW_RES, dtype="uint8", shape=shape)
        return found.model_copy(update={"more": (*found.more, low_res)})

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        facts = super().facts(tensors)
        low_res = {"kind": "low_res", "port": "spatial", "drop_prob": 0.0, "noise": 0.0}
        return {**facts, "conditions": [*facts["conditions"], low_res]}

    def sampling(self, tensors: Tensors) -> dict[str, Any]:
        """27 steps without guidance, from cooler noise; ancestral where a part is known."""
        sampler = "ancestral" if self.inpaints(tensors) else "ddim"
        return {**_SAMPLING, "sampler": sampler, "steps": 27, "spacing": "fast27", "temperature": 0.997}

    def section(self, tensors: Tensors) -> dict[str, Any]:
        return {"px": self.side, "sampling": self.sampling(tensors), "noise": 0.0}
