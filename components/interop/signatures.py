"""Telling checkpoint files apart by the names of their tensors, and the models apart that one file holds."""

from collections.abc import Collection, Mapping

from torch import Tensor

from components.errors import WeightsError
from components.weights import FRAMES

SIGNATURES: dict[str, tuple[str, ...]] = {
    "rdm": ("model.diffusion_model.input_proj.weight",),
    "corgi": ("final_emb", "clip_sentence_proj.0.weight"),
    "unclip": ("prd_embedding", "proj_to_clip_embeddings.weight"),
    "ldm": ("model.diffusion_model.input_blocks.0.0.weight",),
    "mage": ("token_emb.word_embeddings.weight", "decoder_embed.weight"),
    "dit": ("x_embedder.proj.weight", "final_layer.linear.weight"),
    "glide": ("input_blocks.0.0.weight", "transformer_proj.weight"),
    "adm-classifier": ("input_blocks.0.0.weight", "out.2.positional_embedding"),
    "adm": ("input_blocks.0.0.weight", "time_embed.0.weight"),
    "vq-f8": ("quantize.embedding.weight", "quant_conv.weight"),
    "vqgan": ("quantize.embedding.weight", "encoder.down.0.block.0.norm1.weight"),
    "kl": ("encoder.down_blocks.0.resnets.0.norm1.weight", "quant_conv.weight"),
    "glide-clip-image": ("blocks.input.w_t", "blocks.input.patch_proj"),
    "glide-clip-text": ("blocks.input.w_voc", "blocks.output.f.w"),
    "clip": ("visual.class_embedding", "visual.proj"),
    "clip-text": ("token_embedding.weight", "text_projection"),
    "mocov3": ("cls_token", "head.0.weight", "head.7.running_mean"),
    "ibot": ("cls_token", "head.last_layer2.weight_g"),
    "dino": ("cls_token", "head.mlp.0.weight"),
    "deit": ("cls_token", "head.weight"),
}
"""Names that a model's tensors always have in the reference's layout, the more telling kinds first."""
_BACKBONE = ("cls_token", "pos_embed", "blocks.0.attn.qkv.weight")
"""A ViT whose head was cut off, as DINO publishes its own."""
PARTS = ("vqgan.", "pretrained_encoder.", "first_stage_model.")
"""Prefixes under which a generator's file carries the frozen models that it was trained with."""
STAGE_OF = {
    **dict.fromkeys(("rdm", "corgi", "unclip"), "rdm"),
    **dict.fromkeys(("ldm", "mage", "dit", "adm", "glide"), "pixels"),
    **dict.fromkeys(("adm-upsampler", "glide-upsampler"), "upsampler"),
    **dict.fromkeys(("adm-classifier", "glide-clip-image"), "guide"),
    **dict.fromkeys(("vq-f8", "vqgan", "kl"), "codec"),
    **dict.fromkeys(("mocov3", "ibot", "dino", "deit", "clip"), "encoder"),
    **dict.fromkeys(("clip-text", "glide-clip-text"), "text"),
}
"""The stage that imports a kind."""


def recognize(names: Mapping[str, Tensor]) -> str | None:
    """The kind of model that these tensors are of; None for none that is known."""
    for kind, signature in SIGNATURES.items():
        if _has(names, *signature):
            return f"{kind}-upsampler" if kind in ("adm", "glide") and _takes_two_images(names) else kind
    if _has(names, "layer1.0.conv1.weight"):
        raise WeightsError(
            "an encoder that is a ResNet is imported through timm",
            fix="write encoder.model by hand: {kind: timm, name: resnet50, dim: 2048, output: pooled, …}",
        )
    return "dino" if _has(names, *_BACKBONE) and not _has(names, "blocks.0.ls1.gamma") else None


def _takes_two_images(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the first convolution reads a noisy image and a small one, RGB or gray; nothing else is different.

    Of an inpainter also a known part and a mask.
    """
    return tensors["input_blocks.0.0.weight"].shape[1] in (2, 4, 6, 10)


def _has(names: Collection[str], *wanted: str) -> bool:
    return all(any(f"{frame}{name}" in names for frame in ("", *FRAMES)) for name in wanted)


def split(table: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The models of one table by kind, each under the names of its own file; unknown ones are left out."""
    parts: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in ("", *PARTS)}
    for name, tensor in table.items():
        prefix = next((p for p in PARTS if name.startswith(p)), "")
        parts[prefix][name.removeprefix(prefix)] = tensor
    return {kind: part for part in parts.values() if (kind := recognize(part)) is not None}
