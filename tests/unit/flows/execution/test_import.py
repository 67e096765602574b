"""`rcg import-checkpoint`: what is wrong with a file is named at once, and what is printed is valid."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from components.codecs.config import VqganConfig
from components.conditions.config import LowResConfig
from components.diffusion.schedule import ScheduleConfig
from components.encoders.config import DinoConfig
from components.errors import ConfigError, WeightsError
from components.generators.config import GeneratorData
from components.generators.upsampling import upsampler_data
from components.guides.config import UNetGuideConfig
from components.interop.checkpoint import export_tensors, import_tensors, write_checkpoint
from components.pixels.adm import AdmConfig
from components.pixels.dit import DitConfig
from components.pixels.mage import MageConfig
from components.pixels.unet import HeadWidth
from components.rdm import RdmConfig
from components.target import TargetSpec
from components.weights import save_weights
from flows.execution.checkpoints import import_section, timm_section, write_sections
from flows.pipeline.params import check_section
from tests.support.folders import randomize
from tests.support.generators import BY_CLASS, build_prior, build_rdm, conditions, without_level

TOKENS = TargetSpec(space="tokens", shape=(4, 4), dtype="int32", n_codes=103, image_px=8)
PIXELS = TargetSpec(space="pixels", shape=(3, 8, 8), dtype="uint8", n_codes=None, image_px=8)
LATENTS = TargetSpec(space="latents", shape=(4, 8, 8), dtype="float32", n_codes=None, image_px=64)
RDM = RdmConfig.tiny().model_copy(update={"schedule": ScheduleConfig(kind="sqrt_linear", n_times=1000)})
DIT = DitConfig.tiny().model_copy(update={"width": 64, "heads": 1})
MAGE = MageConfig.tiny().model_copy(update={"width": 64, "heads": 1, "decoder_heads": 1})
GUIDE = UNetGuideConfig.model_validate(
    UNetGuideConfig.tiny().model_dump()
    | {"width": 64, "multipliers": (1, 1), "heads": {"width": 64}, "groups": 32, "input": "as_is"}
)
NOISELESS = LowResConfig(kind="low_res", port="spatial", drop_prob=0.0, noise=0.0)
MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "rdm": lambda: build_rdm(RDM, None),
    "rdm by class": lambda: build_rdm(RDM.model_copy(update={"conditions": BY_CLASS}), 10),
    "corgi": lambda: build_prior("corgi", width=64, heads=1),
    "unclip": lambda: build_prior("unclip", width=64, heads=1),
    "dit": lambda: DIT.build(GeneratorData(target=LATENTS, dim=8, classes=None)),
    "mage": lambda: MAGE.build(GeneratorData(target=TOKENS, dim=8, classes=None)),
    "adm": lambda: _adm((), PIXELS),
    "adm by class": lambda: _adm(BY_CLASS, PIXELS),
    "adm-upsampler": lambda: _adm((NOISELESS, *BY_CLASS), None),
    "adm-classifier": lambda: GUIDE.build(GeneratorData(target=PIXELS, dim=1, classes=tuple("abc"))),
    "vqgan": lambda: VqganConfig.tiny().model_copy(update={"width": 32, "groups": 32}).build(),
    "dino": lambda: DinoConfig.tiny().model_copy(update={"width": 64, "heads": 1}).build().network,
}


def _adm(told: Any, target: TargetSpec | None) -> torch.nn.Module:
    """Heads and groups as published. Without a target: an upsampler."""
    sizes = {"width": 64, "multipliers": (1, 1), "heads": HeadWidth(width=64), "groups": 32, "conditions": told}
    data = (
        GeneratorData(target=target, dim=1, classes=tuple("abc")) if target else upsampler_data(3, 4, 8, tuple("abc"))
    )
    return AdmConfig.tiny().model_copy(update=sizes).build(data)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tensors_of(name: str) -> dict[str, Tensor]:
    module = MODULES[name]()
    randomize(module)
    module = without_level(module) if name == "adm-upsampler" else module
    return export_tensors(name.split(maxsplit=1)[0], module)


def section_of(file: dict[str, Any]) -> dict[str, Any]:
    torch.save(file, "c.pth")
    found = import_section(Path("c.pth"), kind=None, stage=None)
    section: dict[str, Any] = yaml.safe_load(found.text)[found.stage]
    check_section(found.stage, section)
    return section


@pytest.mark.parametrize("name", MODULES)
def test_what_is_printed_is_a_whole_section(name: str) -> None:
    kind = name.split(maxsplit=1)[0]
    write_checkpoint(Path("c.pth"), kind, tensors_of(name))
    found = import_section(Path("c.pth"), kind=None, stage=None)
    section = yaml.safe_load(found.text)
    check_section(found.stage, section[found.stage])
    assert ("init" in section[found.stage]) == (found.stage in ("rdm", "pixels"))
    started = section[found.stage] | {"init": f"sha256:{'a' * 64}"}
    if found.stage == "rdm":
        Path("params.yaml").write_text(yaml.safe_dump({"rdm": started}))
        assert import_section(Path("c.pth"), kind=None, stage=None).section["init"] is None


def test_files_of_adm_say_their_stage_and_how_to_go_on() -> None:
    said = {}
    for kind in ("adm", "adm by class", "adm-upsampler", "adm-classifier"):
        write_checkpoint(Path("c.pt"), kind.split(maxsplit=1)[0], tensors_of(kind))
        assert torch.load("c.pt").keys() == tensors_of(kind).keys(), "a bare state dict, as published"
        found = import_section(Path("c.pt"), kind=None, stage=None)
        said[kind] = (found.stage, found.section, found.note)
    stages = {kind: stage for kind, (stage, _, _) in said.items()}
    assert list(stages.values()) == ["pixels", "pixels", "upsampler", "guide"]
    assert [c["kind"] for c in said["adm-upsampler"][1]["model"]["conditions"]] == ["low_res", "class"]
    assert "makes 256 pixels of 64" in (said["adm-upsampler"][2] or "")
    assert "sample.pixels.guide: {scale: 1.0}" in (said["adm-classifier"][2] or "")
    with pytest.raises(ConfigError, match=r"adm-classifier file is imported by `guide`"):
        import_section(Path("c.pt"), kind=None, stage="pixels")


def _without_average(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("model_ema.")]:
        del tensors[name]


LAST = "model_ema.diffusion_modelout2bias"
WRONG: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "missing": (lambda t: t.pop("betas"), "missing: betas"),
    "missing average": (lambda t: t.pop(LAST), f"missing: {LAST}"),
    "no average": (_without_average, "missing: model_ema"),
    "extra": (lambda t: t.update(surplus=torch.ones(1)), "not in the model: surplus"),
    "misshapen": (lambda t: t.update({LAST: t[LAST][:-1]}), f"wrong shape: {LAST}"),
    "half precision": (lambda t: t.update({LAST: t[LAST].half()}), f"wrong dtype: {LAST} torch.float16"),
    "not a number": (lambda t: t[LAST].fill_(float("nan")), f"not finite: {LAST}"),
    "infinite": (lambda t: t[LAST][:1].fill_(float("-inf")), f"not finite: {LAST}"),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_rdm_file_that_does_not_fit_is_refused(what: str) -> None:
    change, words = WRONG[what]
    tensors = {name: t.clone() for name, t in tensors_of("rdm").items()}
    change(tensors)
    with pytest.raises(WeightsError, match=words):
        section_of({"model": tensors})


@pytest.mark.parametrize("name", ["dit", "mage", "vqgan", "dino"])
def test_other_files_that_do_not_fit_are_refused(name: str) -> None:
    tensors = {n: t.clone() for n, t in tensors_of(name).items()}
    last = [n for n, t in tensors.items() if t.ndim == 1 and t.is_floating_point()][-1]
    for wrong, words in ((tensors[last].half(), "wrong dtype"), (tensors[last] / 0, "not finite")):
        write_checkpoint(Path("c.pth"), name, tensors | {last: wrong})
        with pytest.raises(WeightsError, match=f"{words}: {last}"):
            import_section(Path("c.pth"), kind=None, stage=None)


def test_a_dit_file_with_averaged_weights_only_is_read() -> None:
    assert section_of({"model_ema": tensors_of("dit"), "epoch": 3})["model"]["kind"] == "dit"


def test_mage_is_guided_only_where_its_null_was_trained() -> None:
    whole = tensors_of("mage")
    bare = {n: t for n, t in whole.items() if not n.startswith("latent_prior_proj")}
    files = {
        "trained": whole,
        "never": whole | {"fake_latent": torch.zeros(1, 8)},
        "absent": {n: t for n, t in whole.items() if n != "fake_latent"},
        "classes": bare | {"class_emb.weight": torch.randn(10, 64)},
        "unconditional": bare,
    }
    sections = {name: section_of({"model": tensors}) for name, tensors in files.items()}
    guided = {name: section["preview"]["sampling"]["guidance"] > 0 for name, section in sections.items()}
    assert guided == {"trained": True, "never": False, "absent": False, "classes": False, "unconditional": False}
    dropped = {name: [c["drop_prob"] for c in section["model"]["conditions"]] for name, section in sections.items()}
    assert dropped == {"trained": [0.1], "never": [0.0], "absent": [0.0], "classes": [0.0], "unconditional": []}


def test_an_unconditional_dit_is_one_and_samples_with_its_label_row() -> None:
    """As in the reference: time + label row 0; the map of representations never gets a gradient."""
    whole = tensors_of("dit") | {"y_embedder.embedding_table.weight": torch.randn(1, 64)}
    file = whole | {"rep_embedder.bias": torch.zeros(64)}
    file.pop("fake_latent")
    assert section_of({"model": file, "model_ema": file})["model"]["conditions"] == []
    dit = DIT.model_copy(update={"conditions": conditions("none")})
    module = dit.build(GeneratorData(target=LATENTS, dim=8, classes=None))
    imported = import_tensors("dit", file, module)
    again = export_tensors("dit", imported.weights, imported.kept)
    assert again.keys() == file.keys()
    assert all(torch.equal(again[name], t) for name, t in file.items())
    t = torch.tensor([3, 500])
    conditioned = MODULES["dit"]()
    import_tensors("dit", file | {"rep_embedder.bias": torch.ones(64)}, conditioned)
    plain, ours = conditioned.net.t_embedder(t), module.net.t_embedder(t)  # type: ignore[union-attr, operator]
    torch.testing.assert_close(ours, plain + file["y_embedder.embedding_table.weight"])


def test_a_timm_file_becomes_the_encoder_as_timm_uses_it() -> None:
    import timm

    save_weights(Path("net.safetensors"), timm.create_model("test_resnet", pretrained=False).state_dict())
    found = timm_section(Path("net.safetensors"), "test_resnet", stage="encoder")
    section = yaml.safe_load(found.text)["encoder"]
    check_section("encoder", section)
    model = section["model"]
    assert (model["name"], model["dim"], model["output"], section["px"]) == ("test_resnet", 96, "pooled", 160)
    assert model["weights"]["sha256"] == hashlib.sha256(Path("net.safetensors").read_bytes()).hexdigest()
    assert write_sections(found)[0] == ["encoder"]
    assert yaml.safe_load(Path("params.yaml").read_text())["encoder"] == section
    save_weights(Path("vit.safetensors"), timm.create_model("test_vit", pretrained=False).state_dict())
    assert timm_section(Path("vit.safetensors"), "test_vit", stage=None).section["model"]["output"] == "cls"
    with pytest.raises(WeightsError, match="does not fit the model"):
        timm_section(Path("vit.safetensors"), "test_resnet", stage=None)
    with pytest.raises(ConfigError, match="--stage encoder"):
        timm_section(Path("vit.safetensors"), "test_vit", stage="rdm")
    with pytest.raises(ConfigError, match="no model 'test_vat'"):
        timm_section(Path("vit.safetensors"), "test_vat", stage=None)
