"""ADM and LDM: their UNets written out from the sheets' formulas, layer names included, and their published sizes.

Provenance: parameter counts and names of LTH14/rcg @ 0c4433c (ADM-256 with rep_proj: 568 tensors, 553,077,254); the
forward passes are plain float64 torch functions of the state dict. Tolerance 1e-5 relative.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as tf

from components.conditions.ports import Ports
from components.diffusion.schedule import ScheduleConfig
from components.generators.config import GeneratorData
from components.interop.checkpoint import describe
from components.nn.unet import UNetShape
from components.pixels.adm import AdmConfig
from components.pixels.ldm import LdmConfig
from components.pixels.unet import HeadWidth
from components.pixels.unet_network import UNetNetwork
from components.target import TargetSpec
from tests.support.folders import randomize
from tests.support.generators import conditions

TOLD = conditions("representation")
PAPER_ADM = AdmConfig(
    kind="adm",
    conditions=TOLD,
    width=256,
    multipliers=(1, 1, 2, 2, 4, 4),
    n_blocks=2,
    attention_sides=(32, 16, 8),
    heads=HeadWidth(width=64),
    qkv_order="per_head",
    groups=32,
    schedule=ScheduleConfig(kind="linear", n_times=1000),
    prediction="eps",
    min_snr=None,
    variance="learned",
    latents="as_stored",
)
PAPER_LDM = LdmConfig(
    kind="ldm",
    conditions=conditions("representation", project=False),
    width=256,
    multipliers=(1, 2, 4),
    n_blocks=2,
    attention_sides=(32, 16, 8),
    heads=HeadWidth(width=32),
    groups=32,
    context_dim=256,
    schedule=ScheduleConfig(kind="sqrt_linear", n_times=1000),
    prediction="eps",
    min_snr=None,
    variance="fixed",
    latents="as_stored",
)
IMAGES = TargetSpec(space="pixels", shape=(3, 256, 256), dtype="uint8", n_codes=None, image_px=256)
LATENTS = TargetSpec(space="latents", shape=(4, 32, 32), dtype="float16", n_codes=None, image_px=256)


def test_adm_256() -> None:
    with torch.device("meta"):
        model = PAPER_ADM.build(GeneratorData(target=IMAGES, dim=256, classes=None))
    shapes = {name: tuple(p.shape) for name, p in model.net.unet.named_parameters()}  # type: ignore[union-attr]
    by_z: Any = model.conditioner["representation"]
    projected = {f"rep_proj.{name}": tuple(p.shape) for name, p in by_z.project.named_parameters()}
    assert len(shapes | projected) == 568
    n_null = by_z.null.numel()
    assert sum(p.numel() for p in model.parameters()) - n_null == 553_077_254
    top = {
        "time_embed.0.weight": (1024, 256),
        "time_embed.0.bias": (1024,),
        "time_embed.2.weight": (1024, 1024),
        "time_embed.2.bias": (1024,),
        "rep_proj.weight": (1024, 256),
        "rep_proj.bias": (1024,),
        "input_blocks.0.0.weight": (256, 3, 3, 3),
        "input_blocks.0.0.bias": (256,),
        "out.0.weight": (256,),
        "out.0.bias": (256,),
        "out.2.weight": (6, 256, 3, 3),
        "out.2.bias": (6,),
    }
    assert top.items() <= (shapes | projected).items()


def test_ldm_8() -> None:
    """395 million in the paper's table, class-conditional: context 512 and a table of 1000 classes."""
    data = GeneratorData(target=LATENTS, dim=256, classes=tuple(str(i) for i in range(1000)))
    with torch.device("meta"):
        model = PAPER_LDM.model_copy(update={"conditions": conditions("class"), "context_dim": 512}).build(data)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 395


UP = {"width": 192, "multipliers": (1, 1, 2, 2, 4, 4), "n_blocks": 2, "c_extra": 3}
GLIDE = {"width": 192, "multipliers": (1, 2, 3, 4), "n_blocks": 3, "attention": (2, 4, 8), "sequence_width": 512}
SIZES = {
    "adm-64": ({"width": 192, "multipliers": (1, 2, 3, 4), "n_blocks": 3, "attention": (2, 4, 8)}, 540, 295_136_454),
    "adm-128": (
        {"width": 256, "multipliers": (1, 1, 2, 3, 4), "n_blocks": 2, "attention": (4, 8, 16), "heads": 4},
        492,
        420_505_606,
    ),
    "adm-512": (
        {"width": 256, "multipliers": (0.5, 1, 1, 2, 2, 4, 4), "n_blocks": 2, "attention": (16, 32, 64)},
        644,
        557_973_638,
    ),
    "adm-64-256": ({**UP, "attention": (8, 16, 32), "heads": 4}, 566, 311_027_910),
    "adm-128-512": ({**UP, "attention": (16, 32)}, 536, 308_067_270),
    "glide": (GLIDE, 0, 308_334_918),
    "glide-inpaint": ({**GLIDE, "c_extra": 4}, 0, 308_341_830),
    "glide-up": ({**UP, "attention": (8, 16, 32), "sequence_width": 512}, 0, 321_665_478),
}
"""Published files without class tables and text towers: sizes, tensors (0: unknown without a tower), parameters.

guided-diffusion @22e0df8 and glide-text2im @69b5307, built on the meta device with the flags of their READMEs.
"""


def published(name: str) -> UNetNetwork:
    sizes = dict(SIZES[name][0])
    ports = {key: sizes.pop(key) for key in ("sequence_width", "c_extra") if key in sizes}
    heads = {"head_width": None if "heads" in sizes else 64, "heads": sizes.pop("heads", None)}
    with torch.device("meta"):
        return UNetNetwork(UNetShape(c_in=3, c_out=6, groups=32, family="adm", **heads, **sizes), **ports)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_the_published_unets(name: str) -> None:
    parameters = list(published(name).unet.parameters())
    _, n_tensors, n_elements = SIZES[name]
    assert len(parameters) == n_tensors or not n_tensors
    assert sum(p.numel() for p in parameters) == n_elements


@pytest.mark.parametrize(
    ("name", "heads", "order"),
    [
        ("adm-64", {"width": 64}, "stacked"),
        ("adm-128", {"count": 4}, "per_head"),
        ("adm-512", {"width": 64}, "per_head"),
    ],
)
def test_what_shapes_do_not_tell_of_adm_is_as_published(name: str, heads: dict[str, int], order: str) -> None:
    tensors = dict(published(name).unet.named_parameters())
    sizes = SIZES[name][0]
    facts = describe("adm", tensors)
    assert (facts["heads"], facts["qkv_order"]) == (heads, order)
    assert (tuple(facts["multipliers"]), facts["n_blocks"]) == (sizes["multipliers"], sizes["n_blocks"])
    assert facts["attention_sides"] == [32, 16, 8]
    assert AdmConfig.model_validate(facts).multipliers == sizes["multipliers"]


class Naive:
    """A UNet as functions of its state dict. Heads, groups and depth are those of the tiny configs."""

    def __init__(self, weights: dict[str, Tensor], *, groups: int, head_width: int, adm: bool) -> None:
        self.w = {name: value.double() for name, value in weights.items()}
        self.groups, self.head_width, self.adm = groups, head_width, adm

    def norm(self, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        b, c = x.shape[:2]
        g = x.reshape(b, self.groups, -1)
        g = (g - g.mean(2, keepdim=True)) / (g.var(2, unbiased=False, keepdim=True) + eps).sqrt()
        shape = (1, c, *[1] * (x.ndim - 2))
        return g.reshape(x.shape) * self.w[f"{name}.weight"].view(shape) + self.w[f"{name}.bias"].view(shape)

    def linear(self, name: str, x: Tensor) -> Tensor:
        out = x @ self.w[f"{name}.weight"].T
        return out + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else out

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.w[f"{name}.weight"]
        return tf.conv2d(x, weight, self.w[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def res(self, name: str, x: Tensor, e: Tensor, way: str = "") -> Tensor:
        def resampled(y: Tensor) -> Tensor:
            if way == "up":
                return y.repeat_interleave(2, 2).repeat_interleave(2, 3)
            return y.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)) if way == "down" else y

        h = self.conv(f"{name}.in_layers.2", resampled(tf.silu(self.norm(f"{name}.in_layers.0", x))))
        told = self.linear(f"{name}.emb_layers.1", tf.silu(e))[:, :, None, None]
        if self.adm:
            scale, shift = told.chunk(2, 1)
            h = self.norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        else:
            h = self.norm(f"{name}.out_layers.0", h + told)
        h = self.conv(f"{name}.out_layers.3", tf.silu(h))
        skip = f"{name}.skip_connection"
        return (self.conv(skip, resampled(x)) if f"{skip}.weight" in self.w else resampled(x)) + h

    def heads(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """One head at a time. Shapes: (b, d, n)."""
        weights = torch.einsum("bct,bcs->bts", q * scale, k * scale).softmax(-1)
        return torch.einsum("bts,bcs->bct", weights, v)

    def image_attention(self, name: str, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        flat, d = x.reshape(b, c, -1), self.head_width
        qkv = torch.einsum("oc,bcn->bon", self.w[f"{name}.qkv.weight"][:, :, 0], self.norm(f"{name}.norm", flat))
        qkv = qkv + self.w[f"{name}.qkv.bias"][:, None]
        parts = [qkv[:, i : i + 3 * d].split(d, 1) for i in range(0, 3 * c, 3 * d)]
        mixed = torch.cat([self.heads(*part, d**-0.25) for part in parts], 1)
        out = torch.einsum("oc,bcn->bon", self.w[f"{name}.proj_out.weight"][:, :, 0], mixed)
        return (flat + out + self.w[f"{name}.proj_out.bias"][:, None]).view(b, c, h, w)

    def transformer(self, name: str, x: Tensor, context: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = self.conv(f"{name}.proj_in", self.norm(f"{name}.norm", x, 1e-6)).flatten(2).transpose(1, 2)
        block = f"{name}.transformer_blocks.0"
        for attention, norm in (("attn1", "norm1"), ("attn2", "norm2")):
            z = self.layer_norm(f"{block}.{norm}", y)
            seen = z if attention == "attn1" else context[:, None]
            q, k, v = (
                self.linear(f"{block}.{attention}.to_{part}", rows).transpose(1, 2)
                for part, rows in (("q", z), ("k", seen), ("v", seen))
            )
            d = self.head_width
            mixed = [self.heads(q[:, i : i + d], k[:, i : i + d], v[:, i : i + d], d**-0.25) for i in range(0, c, d)]
            y = y + self.linear(f"{block}.{attention}.to_out.0", torch.cat(mixed, 1).transpose(1, 2))
        value, gate = self.linear(f"{block}.ff.net.0.proj", self.layer_norm(f"{block}.norm3", y)).chunk(2, -1)
        y = y + self.linear(f"{block}.ff.net.2", value * 0.5 * gate * (1 + torch.erf(gate / 2**0.5)))
        return x + self.conv(f"{name}.proj_out", y.transpose(1, 2).reshape(b, c, h, w))

    def layer(self, name: str, x: Tensor, e: Tensor, context: Tensor, way: str) -> Tensor:
        if f"{name}.in_layers.2.weight" in self.w:
            return self.res(name, x, e, way)
        if f"{name}.qkv.weight" in self.w:
            return self.image_attention(name, x)
        if f"{name}.proj_in.weight" in self.w:
            return self.transformer(name, x, context)
        if f"{name}.op.weight" in self.w:
            return self.conv(f"{name}.op", x, stride=2)
        return self.conv(f"{name}.conv", x.repeat_interleave(2, 2).repeat_interleave(2, 3))

    def stage(self, name: str, x: Tensor, e: Tensor, context: Tensor, way: str = "") -> Tensor:
        for i in range(3):
            if any(key.startswith(f"{name}.{i}.") for key in self.w):
                x = self.layer(f"{name}.{i}", x, e, context, way if i == (0 if way == "down" else 2) else "")
        return x

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Two levels of one block each, attention on the second."""
        angle = t.double()[:, None] * 10000 ** (-torch.arange(4, dtype=torch.float64) / 4)
        e = self.linear("time_embed.0", torch.cat([angle.cos(), angle.sin()], 1))
        e = self.linear("time_embed.2", tf.silu(e)) + (condition if self.adm else 0)
        kept = [self.conv("input_blocks.0.0", x.double())]
        for i, way in ((1, ""), (2, "down"), (3, "")):
            kept.append(self.stage(f"input_blocks.{i}", kept[-1], e, condition, way))
        h = self.stage("middle_block", kept[-1], e, condition)
        for i, way in ((0, ""), (1, "up"), (2, ""), (3, "")):
            h = self.stage(f"output_blocks.{i}", torch.cat([h, kept.pop()], 1), e, condition, way)
        return self.conv("out.2", tf.silu(self.norm("out.0", h)))


@pytest.mark.parametrize("config", [AdmConfig.tiny(), LdmConfig.tiny()], ids=["adm", "ldm"])
def test_the_forward_pass(config: AdmConfig | LdmConfig) -> None:
    target = TargetSpec(space="latents", shape=(3, 8, 8), dtype="float16", n_codes=None, image_px=64)
    model = config.build(GeneratorData(target=target, dim=6, classes=None))
    randomize(model)
    generator = torch.Generator().manual_seed(2)
    x, z = torch.randn(3, 3, 8, 8, generator=generator), torch.randn(3, 6, generator=generator)
    t = torch.tensor([0, 321, 999])
    by_z: Any = model.conditioner["representation"]
    told = by_z.project(z)
    ours = model.net(x, model.net.time_vectors(t), Ports(vector=told))
    unet = model.net.unet
    naive = Naive(unet.state_dict(), groups=4, head_width=4, adm=isinstance(config, AdmConfig))  # type: ignore[operator, union-attr]
    theirs = naive(x, t, told.double())
    assert theirs.shape[1] == (6 if isinstance(config, AdmConfig) else 3)
    error = ((ours.double() - theirs).norm() / theirs.norm()).detach()
    assert float(error) < 1e-5


def test_adm_starts_from_the_time_alone() -> None:
    model = AdmConfig.tiny().build(
        GeneratorData(target=LATENTS.model_copy(update={"shape": (4, 8, 8)}), dim=6, classes=None)
    )
    by_z: Any = model.conditioner["representation"]
    assert not any(bool(p.any()) for p in by_z.project.parameters())
