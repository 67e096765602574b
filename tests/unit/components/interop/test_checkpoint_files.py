"""Reading checkpoint files: what is in them, and what is wrong with them."""

import argparse
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from components.codecs.config import KlConfig, VqganConfig
from components.diffusion.schedule import ScheduleConfig
from components.encoders.config import DinoConfig, MoCoV3Config
from components.errors import ConfigError, RcgError, WeightsError
from components.generators.config import GeneratorData
from components.interop.checkpoint import describe, export_tensors, import_tensors, read_checkpoint, write_checkpoint
from components.interop.encoders import import_encoder
from components.interop.layout import adopt, depth_of
from components.interop.pixels import LAYOUTS
from components.interop.rdm import RdmLayout
from components.pixels.dit import DitConfig
from components.pixels.mage import MageConfig
from components.rdm import RdmConfig
from components.target import TargetSpec
from components.weights_file import WeightsFile
from tests.support.folders import randomize
from tests.support.generators import build_rdm, conditions

RDM = RdmConfig.tiny().model_copy(update={"schedule": ScheduleConfig(kind="sqrt_linear", n_times=1000)})
TOKENS = TargetSpec(space="tokens", shape=(4, 4), dtype="int32", n_codes=103, image_px=8)
LATENTS = TargetSpec(space="latents", shape=(4, 8, 8), dtype="float32", n_codes=None, image_px=64)
MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "rdm": lambda: build_rdm(RDM, None),
    "mage": lambda: MageConfig.tiny().build(GeneratorData(target=TOKENS, dim=8, classes=None)),
    "dit": lambda: DitConfig.tiny().build(GeneratorData(target=LATENTS, dim=8, classes=None)),
    "vqgan": lambda: VqganConfig.tiny().build(),
    "kl": lambda: KlConfig.tiny().build(),
    "mocov3": lambda: MoCoV3Config.tiny().build().network,
    "dino": lambda: DinoConfig.tiny().build().network,
}


def module(kind: str) -> torch.nn.Module:
    made = MODULES[kind]()
    randomize(made)
    return made


def pinned(path: Path) -> WeightsFile:
    return WeightsFile(uri=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": t for name, t in tensors.items()}


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_written_and_recognized(kind: str, suffix: str, tmp_path: Path) -> None:
    tensors = export_tensors(kind, module(kind))
    write_checkpoint(tmp_path / f"c{suffix}", kind, tensors)
    found = read_checkpoint(tmp_path / f"c{suffix}")
    assert found.kind == kind
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], t) for name, t in tensors.items())
    assert found.sha256 == hashlib.sha256((tmp_path / f"c{suffix}").read_bytes()).hexdigest()
    target = MODULES[kind]()
    import_tensors(kind, found.tensors, target)
    given = module(kind).state_dict()
    assert all(torch.equal(t, given[name]) for name, t in target.state_dict().items())


def test_a_generators_file_holds_its_frozen_models(tmp_path: Path) -> None:
    mage, vqgan, moco = (export_tensors(kind, module(kind)) for kind in ("mage", "vqgan", "mocov3"))
    model = mage | prefixed("vqgan.", vqgan) | prefixed("pretrained_encoder.", moco)
    args = argparse.Namespace(blr=1.5e-4, rep_drop_prob=0.1, output_dir="out")
    file = {"model": model, "model_ema": None, "optimizer": {"state": {}}, "epoch": 3, "scaler": {}, "args": args}
    torch.save(file, tmp_path / "checkpoint-last.pth")
    found = read_checkpoint(tmp_path / "checkpoint-last.pth")
    assert found.kind == "mage"
    assert set(found.parts) == {"mage", "vqgan", "mocov3"}
    assert found.tensors.keys() == mage.keys()
    tokenizer = read_checkpoint(tmp_path / "checkpoint-last.pth", "vqgan")
    assert all(torch.equal(tokenizer.tensors[name], t) for name, t in vqgan.items())
    with pytest.raises(WeightsError, match=r"holds no rdm(.|\n)*--kind"):
        read_checkpoint(tmp_path / "checkpoint-last.pth", "rdm")


def test_averaged_weights_are_taken_and_live_ones_kept(tmp_path: Path) -> None:
    averaged = export_tensors("dit", module("dit"))
    live = {name: t + 1 for name, t in averaged.items()}
    torch.save({"model": live, "model_ema": averaged, "epoch": 1}, tmp_path / "dit.pth")
    target = MODULES["dit"]()
    kept = adopt(target, pinned(tmp_path / "dit.pth"), LAYOUTS, where="pixels.weights")
    assert torch.equal(target.net.pos_embed, averaged["pos_embed"])  # type: ignore[union-attr, arg-type]
    assert torch.equal(kept["live/pos_embed"], live["pos_embed"])
    assert read_checkpoint(tmp_path / "dit.pth").live.keys() == live.keys()


@pytest.mark.parametrize("last", ["weight_g", "weight_v", "weight", "parametrizations.weight.original0"])
def test_heads_of_dino_and_ibot_files(last: str, tmp_path: Path) -> None:
    """Prefixed backbone, plain or weight-normalized last layers; iBOT has a second one."""
    plain = export_tensors("dino", module("dino"))
    teacher = {n if n.startswith("head.") else f"backbone.{n}": t for n, t in plain.items()}
    for kind, extra in (("dino", {}), ("ibot", {"head.last_layer2.weight_g": torch.ones(9, 1)})):
        file = teacher | {f"head.last_layer.{last}": torch.ones(9, 8)} | extra
        torch.save({"teacher": file, "student": {}, "args": argparse.Namespace(arch="vit_base")}, tmp_path / "d.pth")
        found = read_checkpoint(tmp_path / "d.pth")
        assert found.kind == kind
        config = DinoConfig.tiny().model_copy(update={"kind": kind, "weights": pinned(tmp_path / "d.pth")})
        encoder, kept = import_encoder(config)
        assert torch.equal(encoder.network.head.mlp[4].bias, plain["head.mlp.4.bias"])  # type: ignore[union-attr, index]
        assert f"head.last_layer.{last}" in kept
        assert import_encoder(config.model_copy(update={"output": "cls"}))[0].dim == 16


def test_a_backbone_as_dino_publishes_it(tmp_path: Path) -> None:
    backbone = {n: t for n, t in module("dino").state_dict().items() if not n.startswith("head.")}
    torch.save(backbone, tmp_path / "dino_pretrain.pth")
    found = read_checkpoint(tmp_path / "dino_pretrain.pth")
    assert (found.kind, describe("dino", found.tensors)["output"]) == ("dino", "cls")
    config = DinoConfig.tiny().model_copy(update={"output": "cls", "weights": pinned(tmp_path / "dino_pretrain.pth")})
    assert torch.equal(import_encoder(config)[0].network.state_dict()["cls_token"], backbone["cls_token"])


def test_a_dino_training_that_was_compiled_and_distributed(tmp_path: Path) -> None:
    plain = export_tensors("dino", module("dino"))
    teacher = {n if n.startswith("head.") else f"backbone._orig_mod.{n}": t for n, t in plain.items()}
    file = {"student": prefixed("module.", teacher), "teacher": prefixed("module._orig_mod.", teacher), "epoch": 3}
    torch.save(file | {"args": argparse.Namespace(arch="vit_base")}, tmp_path / "checkpoint.pth")
    found = read_checkpoint(tmp_path / "checkpoint.pth")
    assert (found.kind, found.tensors.keys()) == ("dino", plain.keys())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("kind", ["dit", "rdm", "vqgan"])
def test_prefixes_of_training_frameworks(kind: str, prefix: str, tmp_path: Path) -> None:
    tensors = export_tensors(kind, module(kind))
    torch.save({"model": prefixed(prefix, tensors), "n_averaged": 3}, tmp_path / "c.pth")
    assert read_checkpoint(tmp_path / "c.pth").tensors.keys() == tensors.keys()


def test_moco_v3_after_linear_probing_and_as_a_resnet(tmp_path: Path) -> None:
    linear = {n: t for n, t in module("mocov3").state_dict().items() if not n.startswith("head.")}
    linear |= {"head.weight": torch.ones(10, 16), "head.bias": torch.ones(10)}
    torch.save({"state_dict": prefixed("module.", linear), "arch": "vit_base"}, tmp_path / "linear.pth.tar")
    assert read_checkpoint(tmp_path / "linear.pth.tar").kind == "deit"
    names = ("conv1.weight", "layer1.0.conv1.weight", "fc.0.weight")
    resnet = {f"module.base_encoder.{name}": torch.ones(2, 2) for name in names}
    torch.save({"state_dict": resnet}, tmp_path / "r-50.pth.tar")
    with pytest.raises(WeightsError, match=r"ResNet is imported through timm(.|\n)*resnet50"):
        read_checkpoint(tmp_path / "r-50.pth.tar")


def test_diffusers_old_names_come_back() -> None:
    """Attention was called query, key, value and proj_attn once."""
    new = export_tensors("kl", module("kl"))
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    old = {}
    for name, t in new.items():
        renamed = name
        for a, b in names.items():
            renamed = renamed.replace(a, b)
        old[renamed] = t
    assert old.keys() != new.keys()
    first, second = import_tensors("kl", new, MODULES["kl"]()), import_tensors("kl", old, MODULES["kl"]())
    assert all(torch.equal(t, second.weights[name]) for name, t in first.weights.items())
    again = export_tensors("kl", second.weights, second.kept)
    assert again.keys() == old.keys()
    assert all(torch.equal(again[name], t) for name, t in old.items())


def test_mage_told_classes_or_nothing() -> None:
    whole = export_tensors("mage", module("mage"))
    bare = {n: t for n, t in whole.items() if not n.startswith("latent_prior_proj") and n != "fake_latent"}
    table = bare | {"class_emb.weight": torch.randn(10, 8)}
    for kind, tensors, classes in (("none", bare, None), ("class", table, tuple("abcdefghij"))):
        model = MageConfig.tiny().model_copy(update={"conditions": conditions(kind)})
        generator = model.build(GeneratorData(target=TOKENS, dim=8, classes=classes))
        assert [one["kind"] for one in describe("mage", tensors)["conditions"]] == ([kind] if classes else [])
        imported = import_tensors("mage", tensors, generator)
        again = export_tensors("mage", generator, imported.kept)
        assert again.keys() == tensors.keys()
        assert all(torch.equal(again[name], t) for name, t in tensors.items())
    words, where = whole["token_emb.word_embeddings.weight"], whole["token_emb.position_embeddings.weight"]
    assert words.shape[0] == 103 + 1001
    assert where.shape[0] == 17


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.marker,)


class Sneaky(argparse.Namespace):
    def __reduce__(self) -> tuple[object, ...]:
        return eval, ("1 + 1",)


def _rdm_file(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = export_tensors("rdm", module("rdm"))
    change(tensors)
    torch.save({"model": tensors}, path)


def _nothing(_: object) -> None:
    """Leaves things as they are."""


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "absent": (_nothing, r"does not exist(.|\n)*called c\.pth(.|\n)*sha256sum(.|\n)*rdm\.weights\.sha256"),
    "empty": (lambda p: p.write_bytes(b"") and None, "not a whole torch file"),  # type: ignore[func-returns-value]
    "another kind": (
        lambda p: torch.save({"model": export_tensors("mage", module("mage"))}, p),
        r"is a mage file(.|\n)*`pixels`",
    ),
    "another size": (
        lambda p: _rdm_file(p, lambda t: t.update({k: v[..., :-1] for k, v in t.items() if "out.2" in k})),
        r"wrong shape: model\.diffusion_model\.out\.2",
    ),
    "a missing tensor": (lambda p: _rdm_file(p, lambda t: t.pop("betas")), "missing: betas"),
    "no average": (
        lambda p: _rdm_file(p, lambda t: [t.pop(n) for n in list(t) if n.startswith("model_ema.")]),
        r"missing: model_ema\.decay",
    ),
    "a surplus tensor": (
        lambda p: _rdm_file(p, lambda t: t.update(surplus=torch.ones(1))),
        "not in the model: surplus",
    ),
    "half precision": (
        lambda p: _rdm_file(p, lambda t: t.update({"model.diffusion_model.out.2.bias": torch.ones(8).half()})),
        r"wrong dtype: model\.diffusion_model\.out\.2\.bias torch\.float16 for torch\.float32",
    ),
    "unknown names": (lambda p: torch.save({"model": {"a": torch.ones(1)}}, p), "missing: .*; not in the model: a"),
    "no tensors": (lambda p: torch.save({"model": {"a": 1}, "epoch": 2}, p), "no table of weights"),
    "a payload": (lambda p: torch.save({"model": Payload(p.with_name("ran"))}, p), "would run code"),
    "a bare payload": (
        lambda p: p.write_bytes(pickle.dumps(Payload(p.with_name("ran")), protocol=2)) and None,  # type: ignore[func-returns-value]
        "would run code",
    ),
    "sneaky options": (lambda p: torch.save({"model": {"a": torch.ones(1)}, "args": Sneaky()}, p), "would run code"),
    "options that hold more": (
        lambda p: torch.save({"model": {}, "args": argparse.Namespace(a=Payload(p.with_name("ran")))}, p),
        "would run code",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_and_loads_nothing(name: str, tmp_path: Path) -> None:
    make, message = BAD[name]
    path = tmp_path / "c.pth"
    make(path)
    rdm = build_rdm(RDM, None)
    before = {key: t.clone() for key, t in rdm.state_dict().items()}
    file = pinned(path) if path.exists() else WeightsFile(uri=str(path), sha256="1" * 64)
    with pytest.raises(RcgError, match=message):
        adopt(rdm, file, (RdmLayout(),), where="rdm.weights")
    assert all(torch.equal(t, before[key]) for key, t in rdm.state_dict().items())
    assert not path.with_name("ran").exists()


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_truncated_files(share: float, tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    _rdm_file(path, _nothing)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WeightsError, match="not a whole torch file"):
        read_checkpoint(path)


def test_unknown_files_and_kinds(tmp_path: Path) -> None:
    torch.save({"state_dict": {"layer.weight": torch.ones(1)}}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"no known kind(.|\n)*layer\.weight"):
        read_checkpoint(tmp_path / "x.pth")
    _rdm_file(tmp_path / "rdm.pth", _nothing)
    with pytest.raises(ConfigError, match=r"no such kind(.|\n)*rdm"):
        read_checkpoint(tmp_path / "rdm.pth", "gan")
    with pytest.raises(ConfigError, match="no such kind"):
        export_tensors("gan", {})


def test_a_clip_file_without_some_of_its_keys_is_named(tmp_path: Path) -> None:
    """Hugging Face's names have queries, keys and values apart; put together, they have to be there."""
    block = "text_model.encoder.layers.0.self_attn"
    tensors = {
        "text_model.embeddings.token_embedding.weight": torch.ones(4, 2),
        f"{block}.q_proj.weight": torch.ones(2, 2),
    }
    torch.save(tensors, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="is no whole"):
        read_checkpoint(tmp_path / "x.pt")


def test_blocks_are_counted_by_plain_numbers() -> None:
    assert depth_of({"blocks.0.w": torch.ones(1), "blocks.\N{SUPERSCRIPT TWO}.w": torch.ones(1)}, "blocks.") == 1
