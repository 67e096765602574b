"""Telling checkpoint files apart by the names of their tensors, and the models apart that one file holds."""

from collections.abc import Collection, Mapping

from torch import Tensor

SIGNATURES: dict[str, tuple[str, ...]] = {
    "rdm": ("model.diffusion_model.input_proj.weight",),
    "ldm": ("model.diffusion_model.input_blocks.0.0.weight",),
    "mage": ("token_emb.word_embeddings.weight", "decoder_embed.weight"),
    "dit": ("x_embedder.proj.weight", "final_layer.linear.weight"),
    "adm": ("input_blocks.0.0.weight", "time_embed.0.weight"),
    "vq-f8": ("quantize.embedding.weight", "quant_conv.weight"),
    "vqgan": ("quantize.embedding.weight", "encoder.down.0.block.0.norm1.weight"),
    "kl": ("encoder.down_blocks.0.resnets.0.norm1.weight", "quant_conv.weight"),
    "mocov3": ("cls_token", "head.0.weight", "head.7.running_mean"),
    "ibot": ("cls_token", "head.last_layer2.weight_g"),
    "dino": ("cls_token", "head.mlp.0.weight"),
    "deit": ("cls_token", "head.weight"),
}
"""Names that a model's tensors always have in the reference's layout, the more telling kinds first."""
OUTER = ("module.base_encoder.", "backbone.")
"""Prefixes that training frameworks put before an encoder's names."""
PARTS = ("vqgan.", "pretrained_encoder.", "first_stage_model.")
"""Prefixes under which a generator's file carries the frozen models that it was trained with."""
STAGE_OF = {
    "rdm": "rdm",
    **dict.fromkeys(("ldm", "mage", "dit", "adm"), "pixels"),
    **dict.fromkeys(("vq-f8", "vqgan", "kl"), "codec"),
    **dict.fromkeys(("mocov3", "ibot", "dino", "deit"), "encoder"),
}
"""The stage that imports a kind."""


def recognize(names: Collection[str]) -> str | None:
    """The kind of model that these tensors are of; None for none that is known."""
    for kind, signature in SIGNATURES.items():
        if all(any(f"{outer}{name}" in names for outer in ("", *OUTER)) for name in signature):
            return kind
    return None


def split(table: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The models of one table by kind, each under the names of its own file; unknown ones are left out."""
    parts: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in ("", *PARTS)}
    for name, tensor in table.items():
        prefix = next((p for p in PARTS if name.startswith(p)), "")
        parts[prefix][name.removeprefix(prefix)] = tensor
    return {kind: part for part in parts.values() if (kind := recognize(part)) is not None}
