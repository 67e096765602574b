"""GLIDE's published files: each tensor's name and shape, the params that import them, and the same tensors back.

Provenance: the reference's modules on the meta device, with the defaults of glide-text2im @69b5307. A digest is the
sha256 of the sorted lines `name [sides]`.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from pydantic import TypeAdapter
from torch import Tensor, nn

from components.errors import WeightsError
from components.fields import FieldSpec, mask_name
from components.generators.config import GeneratorData
from components.generators.sampling import Sampling
from components.generators.upsampling import upsampler_data
from components.interop.checkpoint import LAYOUTS, describe, export_tensors, import_tensors, write_checkpoint
from components.interop.signatures import STAGE_OF, recognize
from components.nn.text_transformer import TextTransformer
from components.nn.unet import UNet
from components.pixels import PixelConfig
from components.pixels.adm import AdmConfig
from components.pixels.unet import HeadWidth
from components.rng import BatchRng
from components.target import KNOWN, LOW_RES, TargetSpec
from flows.execution.checkpoints import import_section
from flows.stages.upsampler.params import UpsamplerParams
from tests.support.folders import randomize

READER = {
    "kind": "text_transformer",
    "port": "vector_and_sequence",
    "drop_prob": 0.2,
    "missing": "null",
    "width": 512,
    "depth": 16,
    "heads": 8,
    "project": False,
}
KNOWN_PART = {"kind": "masked_image", "port": "spatial", "drop_prob": 0.0}
SMALL = {"kind": "low_res", "port": "spatial", "drop_prob": 0.0, "noise": 0.0}
TEXT_TOWER = 76_695_808


HOW = {
    "base": ("ancestral", 100, "linspace", 2.0, None),
    "base_inpaint": ("ancestral", 100, "linspace", 4.0, None),
    "upsample": ("ddim", 27, "fast27", 0.0, 0.997),
    "upsample_inpaint": ("ancestral", 27, "fast27", 0.0, 0.997),
}
"""The released notebooks: 100 steps of the generator at scale 3, and 5 to inpaint; fast27 of the upsampler."""


class File(NamedTuple):
    px: int
    conditions: list[dict[str, Any]]
    n_tensors: int
    n_elements: int
    digest: str
    schedule: str = "cosine"
    n_blocks: int = 3
    multipliers: tuple[int, ...] = (1, 2, 3, 4)

    @property
    def kind(self) -> str:
        return "glide-upsampler" if SMALL in self.conditions else "glide"

    @property
    def model(self) -> dict[str, Any]:
        return {
            "kind": "adm",
            "conditions": self.conditions,
            "width": 192,
            "multipliers": list(self.multipliers),
            "n_blocks": self.n_blocks,
            "attention_sides": [32, 16, 8],
            "groups": 32,
            "heads": {"width": 64},
            "qkv_order": "per_head",
            "sequence_dim": 512,
            "schedule": {"kind": self.schedule, "n_times": 1000},
            "prediction": "eps",
            "min_snr": None,
            "variance": "learned",
            "latents": "as_stored",
        }


UP: Any = {"schedule": "linear", "n_blocks": 2, "multipliers": (1, 1, 2, 2, 4, 4)}
FILES = {
    "base": File(64, [READER], 783, 385_030_726, "e0b1269b3127aecdcd9477e4ea58afa5e01dd08c2df243ab1c931b81079e73fc"),
    "base_inpaint": File(
        64, [READER, KNOWN_PART], 783, 385_037_638, "03110f1ba40064c89cdc0a9114b5caaa9383671f31a716616d5194a955b0fdbd"
    ),
    "upsample": File(
        256, [READER, SMALL], 797, 398_361_286, "62a42fe6d9e08f0f4bdd81ae6fec28900a04e8a3bdd2299493afd88e2d2809cd", **UP
    ),
    "upsample_inpaint": File(
        256,
        [READER, KNOWN_PART, SMALL],
        797,
        398_368_198,
        "b4ce0af4a758fad34afff27d41e52be97a02584fca12d238d5f457cf2503e1be",
        **UP,
    ),
}


def _built(model: dict[str, Any], px: int, *, n_ids: int = 50257, n_positions: int = 128, n_channels: int = 3) -> Any:
    config: Any = TypeAdapter(PixelConfig).validate_python(model)
    more: dict[str, Any] = {"ragged": True, "nullable": True, "choices": True}
    ids = FieldSpec(name="ids", dtype="int32", shape=(n_positions,), n_ids=n_ids, **more)
    target = TargetSpec(space="pixels", shape=(n_channels, px, px), dtype="uint8", n_codes=None, image_px=px)
    data = GeneratorData(target=target, dim=1, classes=None, more=(ids,))
    if any(condition["kind"] == "low_res" for condition in model["conditions"]):
        data = upsampler_data(n_channels, px // 4, px, None, (ids,))
    return config.build(data)


@pytest.mark.parametrize("name", FILES)
def test_a_published_file(name: str) -> None:
    file = FILES[name]
    with torch.device("meta"):
        module = _built(file.model, file.px)
    theirs = export_tensors(file.kind, module)
    lines = sorted(f"{tensor} {list(t.shape)}" for tensor, t in theirs.items())
    assert (len(theirs), sum(t.numel() for t in theirs.values())) == (file.n_tensors, file.n_elements)
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == file.digest
    reader = module.conditioner["text_transformer"].encoder
    assert sum(p.numel() for p in reader.parameters()) == TEXT_TOWER
    level = 192 * 9 if file.kind == "glide-upsampler" else 0  # of the channel of the noise, which the file lacks
    assert sum(p.numel() for p in module.parameters()) == file.n_elements + level
    assert recognize(theirs) == file.kind
    assert describe(file.kind, theirs) == file.model
    data = LAYOUTS[file.kind].data(theirs)
    assert data.target.image_px == file.px
    assert next((field.name, field.n_ids) for field in data.more) == ("ids", 50257)
    how: Any = TypeAdapter(Sampling).validate_python(LAYOUTS[file.kind].sampling(theirs))
    assert (how.sampler, how.steps, how.spacing, how.guidance, how.temperature) == HOW[name]
    LAYOUTS[file.kind].check(theirs, module.state_dict(), source="the file")
    own = {tensor: tuple(t.shape) for tensor, t in module.state_dict().items()}
    imported = import_tensors(file.kind, theirs).weights
    assert {tensor: tuple(t.shape) for tensor, t in imported.items()} == own


def _tiny_model(name: str, px: int | None = None) -> dict[str, Any]:
    conditions = [READER | {"width": 64, "depth": 2, "heads": 1}, *FILES[name].conditions[1:]]
    sizes = {"width": 64, "multipliers": [1, 2], "n_blocks": 1, "attention_sides": [(px or FILES[name].px) // 2]}
    return FILES[name].model | sizes | {"conditions": conditions, "sequence_dim": 64}


def _tiny(name: str, px: int | None = None) -> Any:
    """`px`: of pictures, which the tensors do not depend on."""
    return _built(_tiny_model(name, px), px or FILES[name].px, n_ids=300, n_positions=7)


def tiny_file(name: str) -> dict[str, Tensor]:
    """Random tensors in the layout of a file of this kind, as small as it can be."""
    with torch.device("meta"):
        shapes = {n: tuple(t.shape) for n, t in export_tensors(FILES[name].kind, _tiny(name)).items()}
    rng = torch.Generator().manual_seed(4)
    return {n: 0.1 * torch.randn(shape, generator=rng) for n, shape in shapes.items()}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_imported_by_its_stage_and_written_back(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given, kind = tiny_file(name), FILES[name].kind
    write_checkpoint(Path("glide.pt"), kind, given)
    assert torch.load("glide.pt", weights_only=True).keys() == given.keys()  # bare, as published
    found = import_section(Path("glide.pt"), kind=None, stage=None)
    assert (found.checkpoint.kind, found.stage) == (kind, STAGE_OF[kind])
    assert found.note is not None
    assert "text.bpe" in found.note
    section = yaml.safe_load(found.text)[found.stage]
    assert section["model"] == _tiny_model(name)
    if found.stage == "upsampler":
        assert UpsamplerParams.model_validate(section).px == 256
    module = _tiny(name)
    imported = import_tensors(kind, given, module)
    again = export_tensors(kind, module, imported.kept)
    assert again.keys() == given.keys()
    assert all(torch.equal(again[n], t) for n, t in given.items())


@pytest.mark.parametrize("fault", ["missing", "extra", "shape", "dtype"])
@pytest.mark.parametrize("name", ["base_inpaint", "upsample"])
def test_a_file_that_does_not_fit_is_refused_by_the_tensor(name: str, fault: str) -> None:
    given, tensor = tiny_file(name), "transformer.resblocks.1.attn.c_qkv.bias"
    match fault:
        case "missing":
            del given[tensor]
        case "extra":
            given[tensor := "transformer.resblocks.9.attn.c_qkv.bias"] = torch.zeros(1)
        case "shape":
            given[tensor] = given[tensor][:-1]
        case "dtype":
            given[tensor] = given[tensor].half()
    words = {"missing": "missing", "extra": "not in the model", "shape": "wrong shape", "dtype": "wrong dtype"}
    with pytest.raises(WeightsError, match=f"{words[fault]}: {tensor}"):
        import_tensors(FILES[name].kind, given, _tiny(name))


def test_a_file_computes_what_its_modules_compute() -> None:
    """The upsampling inpainter, put together by hand: x_t | image * mask | mask | the small image, resized."""
    given, ours = tiny_file("upsample_inpaint"), _tiny("upsample_inpaint", 16)
    import_tensors("glide-upsampler", given, ours)
    reader = TextTransformer(n_ids=300, n_positions=7, width=64, depth=2, heads=1, c_out=256)
    reader.load_state_dict({n: given[n] for n in reader.state_dict()})
    config = AdmConfig.model_validate(_tiny_model("upsample_inpaint", 16))
    assert isinstance(config.heads, HeadWidth)
    plain = UNet(config.shape(10, 16, c_out=6, family="adm", qkv_order="per_head", context_dim=64))
    plain.load_state_dict({n: given[n] for n in plain.state_dict()})
    rng = torch.Generator().manual_seed(5)
    image, x_t = (torch.rand(2, 3, 16, 16, generator=rng) * 2 - 1 for _ in range(2))
    mask = torch.rand(2, 16, 16, generator=rng) < 0.5
    small = torch.randint(256, (2, 3, 4, 4), generator=rng, dtype=torch.uint8)
    ids = torch.tensor([[5, 6, 299, -1, -1, -1, -1], [1, 2, 3, 4, 5, 6, 7]])
    t = torch.tensor([3, 700])
    batch = {"ids": ids.int(), KNOWN: image, mask_name(KNOWN): mask, LOW_RES: small}
    with torch.no_grad():
        seen = nn.functional.interpolate(small.float() / 127.5 - 1, (16, 16), mode="bilinear")
        x = torch.cat([x_t, image * mask[:, None], mask[:, None].float(), seen], 1)
        vector, states = reader(ids, ids >= 0)
        time = ours.net.time_vectors(t)
        expected = plain(x, time + vector, states)
        ports, _ = ours.conditioner.sampling_ports(batch, BatchRng(0, 2))
        torch.testing.assert_close(ours.net(x_t, time, ports), expected)


def test_what_has_no_place_in_a_file_is_refused() -> None:
    noisy = _tiny("upsample")
    randomize(noisy)
    with pytest.raises(WeightsError, match="level of the noise"):
        export_tensors("glide-upsampler", noisy)
    with torch.device("meta"):
        plain = _built(_tiny_model("base") | {"conditions": []}, 64)
        projected = _built(_tiny_model("base") | {"conditions": [READER | {"width": 64, "project": True}]}, 64)
    for module in (plain, projected):
        with pytest.raises(WeightsError, match="a glide file has a text transformer"):
            export_tensors("glide", module)
