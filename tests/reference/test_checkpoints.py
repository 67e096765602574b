"""Every layout of the reference's checkpoints, both ways, at full size.

Provenance: LTH14/rcg @ 0c4433c; names, shapes and parameter counts were read off its own models.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from components.codecs.config import CodecConfig
from components.encoders.config import EncoderConfig
from components.errors import WeightsError
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.interop.checkpoint import LAYOUTS, describe, export_tensors, import_tensors
from components.interop.shadowed import buffers
from components.pixels import PixelConfig
from components.rdm import RdmConfig, RdmTransformerConfig
from components.target import TargetSpec
from tests.support.generators import PIXEL, build_rdm
from tests.support.inventory import Layout, expected_layout, expected_tensors, random_tensors

FLOAT = torch.float32


def _plain(name: str) -> Layout:
    return {n: (s, torch.int64 if n.endswith("position_ids") else FLOAT) for n, s in expected_tensors(name).items()}


def _with_shadow(layout: Layout) -> Layout:
    """Scalars and the averaged copy of everything below `model.`."""
    live = {n: v for n, v in layout.items() if n.startswith("model.diffusion_model.")}
    shadows = {"model_ema." + n.removeprefix("model.").replace(".", ""): v for n, v in live.items()}
    return layout | shadows | {"model_ema.decay": ((), FLOAT), "model_ema.num_updates": ((), torch.int32)}


def _encoder(facts: dict[str, Any]) -> nn.Module:
    return TypeAdapter(EncoderConfig).validate_python(facts | {"weights": None}).build().network


def _codec(facts: dict[str, Any]) -> nn.Module:
    module: nn.Module = TypeAdapter(CodecConfig).validate_python(facts).build()
    return module


def _rdm(facts: dict[str, Any]) -> nn.Module:
    return build_rdm(RdmConfig.model_validate(facts), 1000 if facts["conditions"] else None)


def _pixels(shape: tuple[int, ...], space: str) -> Callable[[dict[str, Any]], nn.Module]:
    codes = 1024 if space == "tokens" else None
    dtype = {"tokens": "int32", "latents": "float32", "pixels": "uint8"}[space]
    spec = TargetSpec.model_validate(
        {"space": space, "shape": shape, "dtype": dtype, "n_codes": codes, "image_px": 256}
    )
    data = GeneratorData(target=spec, dim=256, classes=None)
    return lambda facts: TypeAdapter(PixelConfig).validate_python(facts).build(data)


def _prior(facts: dict[str, Any]) -> nn.Module:
    config = RdmTransformerConfig.model_validate(facts)
    text = FieldSpec(name="text", dtype="float32", shape=(config.context_dim,))
    tokens = FieldSpec(name="tokens", dtype="float32", shape=(config.sequence_dim,), ragged=True)
    return config.build(GeneratorData(target=PIXEL, dim=config.dim, classes=None, more=(text, tokens)))


class Case(NamedTuple):
    kind: str
    tensors: Callable[[], Layout]
    build: Callable[[dict[str, Any]], nn.Module]
    n_tensors: int
    n_elements: int
    n_parameters: int | None = None
    """Of our module, where all of them are the reference's."""


RDM = expected_layout("rdm")
CASES = {
    "corgi": Case(
        "corgi",
        lambda: expected_layout("corgi") | expected_layout("corgi_index") | expected_layout("corgi_learned"),
        _prior,
        195,
        1_120_541_696,
        1_120_541_696 + 2_560,  # and our two nulls
    ),
    "rdm": Case("rdm", lambda: _with_shadow(RDM), _rdm, 143 + 132, 62_733_792 + 62_721_282, 62_721_280),
    "rdm-class": Case(
        "rdm",
        lambda: _with_shadow(RDM | expected_layout("rdm_class")),
        _rdm,
        167 + 156,
        72_176_896 * 2 + 12_002 + 512_000,
        72_176_896 + 512_000 + 512,  # and our null
    ),
    "mocov3-b": Case(
        "mocov3", lambda: expected_layout("mocov3_b"), _encoder, 166, 106_803_459, 85_798_656 + 20_987_904
    ),
    "mocov3-l": Case(
        "mocov3", lambda: expected_layout("mocov3_l"), _encoder, 310, 325_355_011, 303_301_632 + 22_036_480
    ),
    "dino": Case("dino", lambda: expected_layout("dino"), _encoder, 156, 92_094_464, 92_094_464),
    "ibot": Case("ibot", lambda: expected_layout("dino"), _encoder, 156, 92_094_464, 92_094_464),
    "vqgan": Case("vqgan", lambda: _plain("vqgan_tensors.txt"), _codec, 168, 54_515_587, 54_515_587),
    "mage-b": Case("mage", lambda: _plain("mage_b_tensors.txt"), _pixels((16, 16), "tokens"), 268, 146_672_106),
    "mage-l": Case("mage", lambda: expected_layout("mage_l"), _pixels((16, 16), "tokens"), 412, 410_155_242),
    "dit-xl-2": Case(
        "dit",
        lambda: expected_layout("dit_xl_2"),
        _pixels((4, 32, 32), "latents"),
        295,
        674_273_952,
        674_273_952 - 1152,
    ),
}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_export_undoes_import(case: Case) -> None:
    layout = case.tensors()
    assert len(layout) == case.n_tensors
    assert sum(math.prod(shape) for shape, _ in layout.values()) == case.n_elements
    given = random_tensors(layout)
    with torch.device("meta"):
        module = case.build(describe(case.kind, given))
    if case.n_parameters is not None:
        assert sum(p.numel() for p in module.parameters()) == case.n_parameters
    LAYOUTS[case.kind].check(given, module.state_dict(), source="the file")
    imported = import_tensors(case.kind, given)
    own = {name: (tuple(t.shape), t.dtype) for name, t in module.state_dict().items()}
    assert {name: (tuple(t.shape), t.dtype) for name, t in imported.weights.items()} == own
    again = export_tensors(case.kind, imported.weights, imported.kept)
    assert again.keys() == given.keys()
    for name, tensor in given.items():
        assert again[name].dtype == tensor.dtype, name
        assert torch.equal(again[name], tensor), name


def test_a_fresh_module_is_exported_whole(case: Case) -> None:
    """Without what an import kept, every tensor of the layout is there all the same."""
    layout = case.tensors()
    facts = describe(case.kind, random_tensors(layout))
    with torch.device("meta"):
        module = case.build(facts)
    made = export_tensors(case.kind, module)
    assert {name: (tuple(t.shape), t.dtype) for name, t in made.items()} == layout


@pytest.mark.parametrize("fault", ["missing", "extra", "shape", "dtype"])
def test_what_is_wrong_is_named_as_in_the_file(case: Case, fault: str) -> None:
    layout = case.tensors()
    given = random_tensors(layout)
    with torch.device("meta"):
        module = case.build(describe(case.kind, given))
    name = next(n for n, (shape, _) in reversed(layout.items()) if len(shape) == 1 and not n.startswith("model_ema"))
    match fault:
        case "missing":
            del given[name]
        case "extra":
            name = "blocks.99.surplus"
            given[name] = torch.zeros(1)
        case "shape":
            given[name] = given[name][:-1]
        case "dtype":
            given[name] = given[name].half()
    words = {"missing": "missing", "extra": "not in the model", "shape": "wrong shape", "dtype": "wrong dtype"}
    with pytest.raises(WeightsError, match=f"{words[fault]}: {name}"):
        LAYOUTS[case.kind].check(given, module.state_dict(), source="the file")


@pytest.mark.parametrize(
    ("kind", "build", "n_tensors", "n_parameters"),
    [
        ("adm", _pixels((3, 256, 256), "pixels"), 568, 553_077_254),
        ("ldm", _pixels((4, 32, 32), "latents"), None, None),
    ],
)
def test_unets_both_ways(
    kind: str, build: Callable[[dict[str, Any]], nn.Module], n_tensors: int | None, n_parameters: int | None
) -> None:
    """Their bodies are OpenAI's and CompVis's; the reference's own inventory has the top-level names alone."""
    with torch.device("meta"):
        module = build(PUBLISHED[kind])
    shapes = {name: (tuple(t.shape), t.dtype) for name, t in export_tensors(kind, module).items()}
    given = random_tensors(shapes)
    if n_tensors is not None and n_parameters is not None:
        assert len(given) == n_tensors
        assert sum(t.numel() for t in given.values()) == n_parameters
        assert expected_layout("adm").items() <= shapes.items()
    assert describe(kind, given) == PUBLISHED[kind]
    LAYOUTS[kind].check(given, module.state_dict(), source="the file")
    imported = import_tensors(kind, given)
    own = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    assert {name: tuple(t.shape) for name, t in imported.weights.items()} == own
    again = export_tensors(kind, imported.weights, imported.kept)
    assert again.keys() == given.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in given.items())


_SHARED = {
    "prediction": "eps",
    "min_snr": None,
    "latents": "as_stored",
    "width": 256,
    "n_blocks": 2,
    "attention_sides": [32, 16, 8],
    "groups": 32,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "adm": {
        **_SHARED,
        "kind": "adm",
        "conditions": [{"kind": "representation", "port": "vector", "drop_prob": 0.0, "project": True}],
        "multipliers": [1, 1, 2, 2, 4, 4],
        "heads": {"width": 64},
        "qkv_order": "per_head",
        "variance": "learned",
        "schedule": {"kind": "linear", "n_times": 1000},
    },
    "ldm": {
        **_SHARED,
        "kind": "ldm",
        "conditions": [{"kind": "representation", "port": "vector", "drop_prob": 0.0, "project": False}],
        "multipliers": [1, 2, 4],
        "heads": {"width": 32},
        "context_dim": 256,
        "variance": "fixed",
        "schedule": {"kind": "sqrt_linear", "n_times": 1000},
    },
}


def test_schedule_buffers() -> None:
    """By the formulas of Ho et al. 2020 (2006.11239, eq. 7), step by step in plain floats."""
    ours, ab = buffers(), 1.0
    for t in range(1000):
        before, beta = ab, (0.0015**0.5 + t / 999 * (0.0195**0.5 - 0.0015**0.5)) ** 2
        ab *= 1 - beta
        variance = beta * (1 - before) / (1 - ab)
        if t in (0, 1, 499, 999):
            expected = {
                "betas": beta,
                "alphas_cumprod": ab,
                "alphas_cumprod_prev": before,
                "sqrt_alphas_cumprod": ab**0.5,
                "sqrt_one_minus_alphas_cumprod": (1 - ab) ** 0.5,
                "log_one_minus_alphas_cumprod": math.log(1 - ab),
                "sqrt_recip_alphas_cumprod": ab**-0.5,
                "sqrt_recipm1_alphas_cumprod": (1 / ab - 1) ** 0.5,
                "posterior_variance": variance,
                "posterior_log_variance_clipped": math.log(max(variance, 1e-20)),
                "posterior_mean_coef1": beta * before**0.5 / (1 - ab),
                "posterior_mean_coef2": (1 - before) * (1 - beta) ** 0.5 / (1 - ab),
            }
            assert {name: float(values[t]) for name, values in ours.items()} == pytest.approx(expected, rel=1e-5)
