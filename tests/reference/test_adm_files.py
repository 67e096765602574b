"""ADM's published files: each tensor's name and shape, the params that import them, and the same tensors back.

Provenance: the reference's modules on the meta device, with the flags of guided-diffusion's README @22e0df8. A digest
is the sha256 of the sorted lines `name [sides]`.
"""

import hashlib
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from components.diffusion.schedule import ScheduleConfig
from components.errors import WeightsError
from components.generators.config import GeneratorData
from components.generators.upsampling import upsampler_data
from components.guides.config import UNetGuideConfig
from components.interop.checkpoint import LAYOUTS, describe, export_tensors, import_tensors
from components.interop.signatures import recognize
from components.nn.unet import UNet
from components.pixels import PixelConfig
from components.pixels.adm import AdmConfig
from components.rng import BatchRng
from components.target import TargetSpec
from tests.support.folders import randomize

LINEAR, COSINE = ({"kind": kind, "n_times": 1000} for kind in ("linear", "cosine"))
WIDE, FOUR = {"width": 64}, {"count": 4}
BY_CLASS = {"kind": "class", "port": "vector", "drop_prob": 0.0, "missing": "skip"}
LOW_RES = {"kind": "low_res", "port": "spatial", "drop_prob": 0.0, "noise": 0.0}
CLASSES = tuple(map(str, range(1000)))


class File(NamedTuple):
    kind: str
    px: int
    model: dict[str, Any]
    n_tensors: int
    n_elements: int
    digest: str


def _unet(width: int, multipliers: list[float], n_blocks: int, heads: dict[str, int], **more: Any) -> dict[str, Any]:
    sizes = {"width": width, "multipliers": multipliers, "n_blocks": n_blocks, "heads": heads, "groups": 32}
    return sizes | {"attention_sides": [32, 16, 8], "schedule": LINEAR, "latents": "as_stored"} | more


def _adm(*args: Any, **more: Any) -> dict[str, Any]:
    noise = {"prediction": "eps", "min_snr": None, "variance": "learned"}
    return {"kind": "adm", "conditions": [BY_CLASS], "qkv_order": "per_head", **noise, **_unet(*args), **more}


def _classifier(multipliers: list[float], n_blocks: int = 2, **more: Any) -> dict[str, Any]:
    return {"kind": "unet_encoder", "input": "as_is", **_unet(128, multipliers, n_blocks, WIDE), **more}


M64: list[float] = [1, 2, 3, 4]
M128: list[float] = [1, 1, 2, 3, 4]
M256: list[float] = [1, 1, 2, 2, 4, 4]
M512 = [0.5, *M256]
UP = {"conditions": [LOW_RES, BY_CLASS]}
FILES = {
    "64x64_diffusion": File(
        "adm",
        64,
        _adm(192, M64, 3, WIDE, schedule=COSINE, qkv_order="stacked"),
        541,
        295_904_454,
        "cdbf32c1675c84fb6da4f769818eb4980bc71961a09ee1fd72653565ec04d974",
    ),
    "128x128_diffusion": File(
        "adm",
        128,
        _adm(256, M128, 2, FOUR),
        493,
        421_529_606,
        "c56d52445fdb2112b94cacc66f3e72fb277c6468c0a3907521619b0fc87ef37e",
    ),
    "256x256_diffusion": File(
        "adm",
        256,
        _adm(256, M256, 2, WIDE),
        567,
        553_838_086,
        "e357403fc997eb00c7f3c70091fdc5286057847a0e1ffc31f6140f1fed305261",
    ),
    "256x256_diffusion_uncond": File(
        "adm",
        256,
        _adm(256, M256, 2, WIDE, conditions=[]),
        566,
        552_814_086,
        "77e18ded5689d791c0f80de615de87c7b701e6613a73e6856ce4baeebb4a6524",
    ),
    "512x512_diffusion": File(
        "adm",
        512,
        _adm(256, M512, 2, WIDE),
        645,
        558_997_638,
        "ab03f15f765591ce8e1ffca2860c02fea26bbe6e0300e58ff6576c7660d272dd",
    ),
    "64x64_classifier": File(
        "adm-classifier",
        64,
        _classifier(M64, 4, schedule=COSINE),
        307,
        65_438_568,
        "0b7fc9917ffd8325f41be9ccb410a7ed19b1b246f2ec700d87120b5ec670ee13",
    ),
    "128x128_classifier": File(
        "adm-classifier",
        128,
        _classifier(M128),
        221,
        42_568_040,
        "e717337216e0644859cedb0c4ed35bb9012a2c6ddf6d460c4b99ed3af8c704ef",
    ),
    "256x256_classifier": File(
        "adm-classifier",
        256,
        _classifier(M256),
        249,
        54_096_360,
        "bc098f973cf9f8b95ca9251e326846016ea8cd08d65e19bba139551b01721c21",
    ),
    "512x512_classifier": File(
        "adm-classifier",
        512,
        _classifier(M512),
        281,
        54_448_360,
        "2a24b6c641814825a5b3bc56d50013e856eb1b459b504910ce9a04fa38a6e35f",
    ),
    "64_256_upsampler": File(
        "adm-upsampler",
        256,
        _adm(192, M256, 2, FOUR, **UP),
        567,
        311_795_910,
        "3a8b8bceb82c3f82b22b5dcf81f6e36d85ccad0d36e36f0e3a6243bb7a950f30",
    ),
    "128_512_upsampler": File(
        "adm-upsampler",
        512,
        _adm(192, M256, 2, WIDE, attention_sides=[32, 16], **UP),
        537,
        308_835_270,
        "7e722e2f64fce61c3f61d6d062dbf1367c8e8b3d238ec71c62173ec6b8d3e3cd",
    ),
}


def built(kind: str, facts: dict[str, Any], px: int, n_channels: int = 3, classes: Any = CLASSES) -> nn.Module:
    target = TargetSpec(space="pixels", shape=(n_channels, px, px), dtype="uint8", n_codes=None, image_px=px)
    data = GeneratorData(target=target, dim=1, classes=classes)
    if kind == "adm-classifier":
        return UNetGuideConfig.model_validate(facts).build(data)
    if kind == "adm-upsampler":
        data = upsampler_data(n_channels, px // 4, px, classes)
    return TypeAdapter(PixelConfig).validate_python(facts).build(data)


@pytest.mark.parametrize("name", FILES)
def test_a_published_file(name: str) -> None:
    kind, px, model, n_tensors, n_elements, digest = FILES[name]
    with torch.device("meta"):
        module = built(kind, model, px)
    theirs = export_tensors(kind, module)
    lines = sorted(f"{tensor} {list(t.shape)}" for tensor, t in theirs.items())
    assert (len(theirs), sum(t.numel() for t in theirs.values())) == (n_tensors, n_elements)
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest
    assert recognize(theirs) == kind
    assert describe(kind, theirs) == model
    data, told = LAYOUTS[kind].data(theirs), BY_CLASS in model.get("conditions", [BY_CLASS])
    assert (data.target.image_px, data.classes) == (px, CLASSES if told else None)
    LAYOUTS[kind].check(theirs, module.state_dict(), source="the file")
    imported = import_tensors(kind, theirs).weights
    own = {tensor: tuple(t.shape) for tensor, t in module.state_dict().items()}
    assert {tensor: tuple(t.shape) for tensor, t in imported.items()} == own


TINY = {
    "adm": AdmConfig.tiny().model_dump(),
    "adm-classifier": UNetGuideConfig.tiny().model_dump() | {"input": "as_is"},
    "adm-upsampler": AdmConfig.tiny().model_dump(),
}


def _tiny(kind: str) -> nn.Module:
    told = {"adm": [BY_CLASS], "adm-upsampler": [LOW_RES, BY_CLASS]}
    conditions = {"conditions": told[kind]} if kind in told else {}
    return built(kind, TINY[kind] | conditions, 8, classes=("a", "b", "c"))


@pytest.mark.parametrize("kind", TINY)
def test_import_and_export_undo_each_other(kind: str) -> None:
    given, module = _file(kind), _tiny(kind)
    imported = import_tensors(kind, given, module)
    again = export_tensors(kind, module, imported.kept)
    assert again.keys() == given.keys()
    assert all(torch.equal(again[name], t) for name, t in given.items())


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("fault", ["missing", "extra", "shape", "dtype"])
def test_a_file_that_does_not_fit_is_refused_by_the_tensor(kind: str, fault: str) -> None:
    module = _tiny(kind)
    given, name = _file(kind), "middle_block.1.qkv.bias"
    match fault:
        case "missing":
            del given[name]
        case "extra":
            given[name := "middle_block.9.bias"] = torch.zeros(1)
        case "shape":
            given[name] = given[name][:-1]
        case "dtype":
            given[name] = given[name].half()
    words = {"missing": "missing", "extra": "not in the model", "shape": "wrong shape", "dtype": "wrong dtype"}
    with pytest.raises(WeightsError, match=f"{words[fault]}: {name}"):
        import_tensors(kind, given, module)


def _file(kind: str) -> dict[str, Tensor]:
    """Random tensors in the layout of a file of this kind, as small as it can be."""
    module = _tiny(kind)
    with torch.device("meta"):
        shapes = {n: (tuple(t.shape), t.dtype) for n, t in export_tensors(kind, module.to("meta")).items()}
    rng = torch.Generator().manual_seed(4)
    return {n: 0.3 * torch.randn(shape, generator=rng) for n, (shape, _) in shapes.items()}


def test_an_upsampler_computes_what_its_file_says() -> None:
    """The UNet of six channels, fed with the noisy image and the small one, time and class added up; no level."""
    given, ours = _file("adm-upsampler"), _tiny("adm-upsampler")
    import_tensors("adm-upsampler", given, ours)
    plain = UNet(AdmConfig.tiny().shape(6, 8, c_out=6, family="adm", qkv_order="per_head"))
    plain.load_state_dict({n: t for n, t in given.items() if n != "label_emb.weight"})
    rng = torch.Generator().manual_seed(5)
    x_t, small = torch.randn(2, 3, 8, 8, generator=rng), torch.randint(256, (2, 3, 2, 2), generator=rng)
    t, y = torch.tensor([3, 700]), torch.tensor([2, 0])
    seen = nn.functional.interpolate(small.float() / 127.5 - 1, (8, 8), mode="bilinear")
    time = ours.net.time_vectors(t)  # type: ignore[union-attr, operator]
    expected = plain(torch.cat([x_t, seen], 1), time + given["label_emb.weight"][y])
    batch = {"class": y, "low_res": small.to(torch.uint8)}
    ports, _ = ours.conditioner.sampling_ports(batch, BatchRng(0, 2))  # type: ignore[union-attr, operator]
    torch.testing.assert_close(ours.net(x_t, time, ports), expected)  # type: ignore[operator]


def test_a_classifier_reads_its_input_as_it_is() -> None:
    given = _file("adm-classifier")
    guide: Any = _tiny("adm-classifier")
    import_tensors("adm-classifier", given, guide)
    x_t, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(6)), torch.tensor([999, 40])
    expected = guide.net.unet(x_t, guide.net.time_vectors(t))
    torch.testing.assert_close(guide.logits(x_t, t), expected)
    scaled: Any = UNetGuideConfig.model_validate(TINY["adm-classifier"] | {"input": "scaled"}).build(guide.data)
    scaled.load_state_dict(guide.state_dict())
    factor = guide.process.ab[t].sqrt().float()[:, None, None, None]
    torch.testing.assert_close(scaled.logits(x_t / factor, t), expected)


def test_what_has_no_place_in_a_file_is_refused() -> None:
    noisy = _tiny("adm-upsampler")
    randomize(noisy)
    with pytest.raises(WeightsError, match="level of the noise"):
        export_tensors("adm-upsampler", noisy)
    cluster = {"kind": "cluster", "port": "vector", "drop_prob": 0.0, "n_clusters": 4}
    module = built("adm", TINY["adm"] | {"conditions": [cluster]}, 8)
    with pytest.raises(WeightsError, match="has a place for one of its conditions"):
        export_tensors("adm", module)
    mlp = {"net.0.weight": torch.zeros(2, 2)}
    with pytest.raises(WeightsError, match="unet_encoder"):
        export_tensors("adm-classifier", mlp)


def test_schedules_of_the_files_are_those_of_their_generators() -> None:
    """A guide is refused beside a generator of another schedule; so the two files of a size agree."""
    for px in (64, 128, 256, 512):
        mine, its = (FILES[f"{px}x{px}_{what}"].model["schedule"] for what in ("classifier", "diffusion"))
        assert ScheduleConfig.model_validate(mine) == ScheduleConfig.model_validate(its)
