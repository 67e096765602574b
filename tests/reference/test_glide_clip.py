"""GLIDE's noise-aware CLIP: each tensor of both files, the params that import them, the same tensors back; and both
towers against plain functions of the tensors, written from the sheet's layers.

Provenance: names, sides and counts of the reference's modules (glide-text2im @69b5307, clip/config.yaml).
Tolerance 1e-5.
"""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as tf

from components.errors import WeightsError
from components.guides.config import VitGuideConfig
from components.interop.checkpoint import (
    describe,
    export_tensors,
    import_tensors,
    layout_of,
    read_checkpoint,
    write_checkpoint,
)
from components.interop.signatures import recognize
from components.text.clip import network
from components.text.config import ClipTextConfig
from flows.execution.checkpoints import import_section

needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="SKIPPED: transformers is not here (extra `text`)"
)


def _file(kind: str, *, width: int, depth: int, out: int, **sizes: int) -> dict[str, tuple[int, ...]]:
    """Names and sides of a file."""
    found: dict[str, tuple[int, ...]] = {}
    if kind == "glide-clip-image":
        n = (sizes["side"] // sizes["patch"]) ** 2 + 1
        found |= {"w_t": (sizes["times"], width), "patch_proj": (width, 3, sizes["patch"], sizes["patch"])}
        found |= {"w_pos": (n, width), "ln.g": (width,), "ln.b": (width,)}
    else:
        found |= {"w_voc": (sizes["vocabulary"], width), "w_pos": (sizes["positions"], width)}
    found = {f"input.{name}": sides for name, sides in found.items()}
    for i in range(depth):
        square = {f"f_attn.f_{x}.w": (width, width) for x in "qkvc"} | {f"f_attn.f_{x}.b": (width,) for x in "qvc"}
        norms = {f"f_{x}.ln.{end}": (width,) for x in ("attn", "mlp") for end in "gb"}
        mlp = {"f_mlp.f_1.w": (4 * width, width), "f_mlp.f_1.b": (4 * width,), "f_mlp.f_2.w": (width, 4 * width)}
        found |= {f"block_{i}.{n}": s for n, s in (square | norms | mlp | {"f_mlp.f_2.b": (width,)}).items()}
    found |= {"output.ln.g": (width,), "output.ln.b": (width,), "output.f.w": (out, width)}
    return {f"blocks.{name}": sides for name, sides in found.items()}


PUBLISHED: dict[str, tuple[dict[str, int], int, int]] = {
    "glide-clip-image": (
        {"width": 768, "depth": 12, "out": 512, "side": 64, "patch": 4, "times": 1000},
        188,
        86_443_776,
    ),
    "glide-clip-text": (
        {"width": 512, "depth": 12, "out": 512, "vocabulary": 65_536, "positions": 77},
        185,
        71_679_488,
    ),
}
SMALL: dict[str, dict[str, int]] = {
    "glide-clip-image": {"width": 128, "depth": 2, "out": 12, "side": 16, "patch": 4, "times": 50},
    "glide-clip-text": {"width": 128, "depth": 2, "out": 12, "vocabulary": 40, "positions": 9},
}


def _module(kind: str, tensors: dict[str, Tensor]) -> Any:
    facts = describe(kind, tensors)
    if kind == "glide-clip-image":
        return VitGuideConfig.model_validate(facts).build(layout_of(kind).data(tensors))
    return network(ClipTextConfig.model_validate({"weights": None, "tokenizer": None, **facts}))


@needs_transformers
@pytest.mark.parametrize("kind", PUBLISHED)
def test_every_tensor_of_the_published_files(kind: str) -> None:
    sizes, n_tensors, n_elements = PUBLISHED[kind]
    with torch.device("meta"):
        tensors = {name: torch.empty(sides) for name, sides in _file(kind, **sizes).items()}
        assert (len(tensors), sum(t.numel() for t in tensors.values())) == (n_tensors, n_elements)
        module = _module(kind, tensors)
    assert recognize(tensors) == kind
    layout_of(kind).check(tensors, module.state_dict(), source="the file")
    lost = {name: t for name, t in tensors.items() if name != "blocks.block_3.f_attn.f_k.w"}
    with pytest.raises(WeightsError, match=r"block_3\.f_attn\.f_k\.w"):
        layout_of(kind).check(lost, module.state_dict(), source="the file")


def _random(kind: str) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    made = {name: torch.randn(sides, generator=rng) for name, sides in _file(kind, **SMALL[kind]).items()}
    return {name: t / math.sqrt(t[0].numel()) if t.ndim > 1 else t for name, t in made.items()}


def _norm(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return tf.layer_norm(x, x.shape[-1:], w[f"{name}.g"], w[f"{name}.b"], 1e-5)


def _blocks(w: dict[str, Tensor], x: Tensor, *, causal: bool) -> Tensor:
    """Pre-norm blocks of 2 heads of 64 channels, exact GELU; w without its first word."""
    for i in range(2):
        at = f"block_{i}.f_attn."
        h = _norm(w, f"{at}ln", x)
        q, k, v = (
            (h @ w[f"{at}f_{part}.w"].T + w.get(f"{at}f_{part}.b", torch.zeros(())))
            .unflatten(-1, (2, 64))
            .transpose(1, 2)
            for part in "qkv"
        )
        logits = q @ k.transpose(-2, -1) / 8
        if causal:
            logits = logits + torch.full(logits.shape[-2:], -torch.inf, dtype=x.dtype).triu(1)
        mixed = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + mixed @ w[f"{at}f_c.w"].T + w[f"{at}f_c.b"]
        at = f"block_{i}.f_mlp."
        x = (
            x
            + tf.gelu(_norm(w, f"{at}ln", x) @ w[f"{at}f_1.w"].T + w[f"{at}f_1.b"]) @ w[f"{at}f_2.w"].T
            + w[f"{at}f_2.b"]
        )
    return x


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("blocks."): t.double() for name, t in tensors.items()}


def test_the_image_tower_is_the_papers_and_the_guide_its_cosine_times_100(tmp_path: Path) -> None:
    kind = "glide-clip-image"
    tensors = _random(kind)
    guide, w = _module(kind, tensors), _plain(tensors)
    import_tensors(kind, tensors, guide)
    rng = torch.Generator().manual_seed(1)
    x, y = torch.randn(3, 3, 16, 16, generator=rng), torch.randn(3, 12, generator=rng)
    mean = torch.tensor([122.77093945, 116.74601251, 104.09373519]).double().view(3, 1, 1)
    std = torch.tensor([68.50053285, 66.63215831, 70.32316309]).double().view(3, 1, 1)
    patches = tf.conv2d(((x.double() + 1) * 127.5 - mean) / std, w["input.patch_proj"], stride=4)
    for t in (0, 7, 49):
        first = w["input.w_t"][t].expand(3, 1, -1)
        h = torch.cat([first, patches.flatten(2).transpose(1, 2)], 1) + w["input.w_pos"]
        h = _blocks(w, _norm(w, "input.ln", h), causal=False)
        expected = _norm(w, "output.ln", h[:, 0]) @ w["output.f.w"].T
        torch.testing.assert_close(guide.output(x, torch.tensor([t])).double(), expected, rtol=1e-5, atol=1e-5)
        likely = 100 * tf.cosine_similarity(expected, y.double())
        torch.testing.assert_close(guide.log_likelihood(x, t, y).double(), likely, rtol=1e-4, atol=1e-3)
    back = export_tensors(kind, guide)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], t) for name, t in tensors.items())
    write_checkpoint(path := tmp_path / "clip_image_enc.pt", kind, back)
    assert read_checkpoint(path).kind == kind
    found = import_section(path, kind=None, stage=None)
    assert (found.stage, found.section["model"]["kind"], found.section["train"]) == ("guide", "vit", None)


@needs_transformers
def test_the_text_tower_is_the_papers(tmp_path: Path) -> None:
    kind = "glide-clip-text"
    tensors = _random(kind)
    tower, w = _module(kind, tensors), _plain(tensors)
    import_tensors(kind, tensors, tower)
    ids = torch.tensor([[38, 5, 6, 39, 0, 0, 0, 0, 0], [38, 7, 8, 9, 10, 11, 12, 13, 39]])  # the end is the largest
    h = _blocks(w, w["input.w_voc"][ids] + w["input.w_pos"], causal=True)
    expected = _norm(w, "output.ln", h[[0, 1], [3, 8]]) @ w["output.f.w"].T
    found = tower.eval()(input_ids=ids).text_embeds.detach()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    back = export_tensors(kind, tower)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], t) for name, t in tensors.items())
    write_checkpoint(path := tmp_path / "clip_text_enc.pt", kind, back)
    section = import_section(path, kind=None, stage=None).section
    assert (section["encoder"]["kind"], section["encoder"]["quick_gelu"]) == ("clip", False)
