"""CLIP's towers against transformers' CLIPModel on small random weights, out of every layout that CLIP is published in.

Tolerance: 1e-5 of the result's scale.
"""

import gzip
import hashlib
import importlib
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.encoders.base import preprocess, standardize
from components.encoders.config import ClipConfig
from components.errors import ConfigError, WeightsError
from components.interop.checkpoint import export_tensors, import_tensors, read_checkpoint
from components.interop.encoders import import_encoder
from components.interop.text import import_text_encoder
from components.text.base import scaled
from components.text.config import ClipTextConfig
from components.text.model import TextModel, load, save
from components.weights import read_tensors
from flows.execution.checkpoints import import_section, write_sections
from flows.pipeline.params import check_section
from tests.support.folders import FolderArtifact

MERGES = ["r e", "re d</w>", "a p", "ap p", "l e</w>", "app le</w>"]
N_TOKENS = 2 * 256 + len(MERGES) + 2
TEXT = {
    "vocab_size": N_TOKENS,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 9,
    "eos_token_id": N_TOKENS - 1,
    "bos_token_id": N_TOKENS - 2,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
LAYOUTS = ("huggingface", "openai", "open_clip", "torchscript")


@pytest.fixture(scope="module")
def clip() -> Any:
    """A whole model of transformers."""
    if find_spec("transformers") is None:
        pytest.skip("SKIPPED: transformers is not here (extra `text`), so CLIP was not tried")
    library = importlib.import_module("transformers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = library.CLIPModel(library.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12))
        for tensor in model.parameters():
            tensor.data += 0.05 * torch.randn(tensor.shape)
    return model.eval().requires_grad_(False)


class _Scripted(nn.Module):
    """Tensors as attributes of modules, as their names say."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for child in dict.fromkeys(name.split(".")[0] for name in tensors if "." in name):
            of_child = {n.removeprefix(f"{child}."): t for n, t in tensors.items() if n.startswith(f"{child}.")}
            self.add_module(child, _Scripted(of_child))
        for name, tensor in tensors.items():
            if "." not in name:
                self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return x


def _openai(clip: Any) -> dict[str, Tensor]:
    """Written from the names of OpenAI's model.py, apart from the code under test."""
    given, out = clip.state_dict(), dict[str, Tensor]()
    for theirs, ours in (("vision_model", "visual."), ("text_model", "")):
        for i in range(2):
            old, new = f"{theirs}.encoder.layers.{i}", f"{ours}transformer.resblocks.{i}"
            for kind in ("weight", "bias"):
                qkv = [given[f"{old}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                out[f"{new}.attn.in_proj_{kind}"] = torch.cat(qkv)
                out[f"{new}.attn.out_proj.{kind}"] = given[f"{old}.self_attn.out_proj.{kind}"]
                out[f"{new}.mlp.c_fc.{kind}"] = given[f"{old}.mlp.fc1.{kind}"]
                out[f"{new}.mlp.c_proj.{kind}"] = given[f"{old}.mlp.fc2.{kind}"]
                for k in (1, 2):
                    out[f"{new}.ln_{k}.{kind}"] = given[f"{old}.layer_norm{k}.{kind}"]
    for kind in ("weight", "bias"):
        out[f"visual.ln_pre.{kind}"] = given[f"vision_model.pre_layrnorm.{kind}"]
        out[f"visual.ln_post.{kind}"] = given[f"vision_model.post_layernorm.{kind}"]
        out[f"ln_final.{kind}"] = given[f"text_model.final_layer_norm.{kind}"]
    return out | {
        "visual.class_embedding": given["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": given["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": given["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": given["visual_projection.weight"].T.contiguous(),
        "token_embedding.weight": given["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": given["text_model.embeddings.position_embedding.weight"],
        "text_projection": given["text_projection.weight"].T.contiguous(),
        "logit_scale": given["logit_scale"],
    }


def _file(clip: Any, layout: str, folder: Path) -> Path:
    """The model as a file of this layout, with what is published beside it."""
    (folder / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress("\n".join(["#version", *MERGES, ""]).encode()))
    if layout == "huggingface":
        clip.save_pretrained(folder)
        return folder / "model.safetensors"
    tensors, path = _openai(clip), folder / "clip.pt"
    if layout == "torchscript":
        tensors |= {"context_length": torch.tensor(9), "input_resolution": torch.tensor(16)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            torch.jit.save(torch.jit.script(_Scripted(tensors)), path)
        return path
    if layout == "open_clip":
        told = {"model_cfg": {"quick_gelu": True, "vision_cfg": {}, "text_cfg": {"heads": 2}}}
        (folder / "open_clip_config.json").write_text(json.dumps(told))
        tensors = {name if name.startswith(("visual.", "logit")) else f"text.{name}": t for name, t in tensors.items()}
        torch.save({"state_dict": {f"module.{name}": t for name, t in tensors.items()}}, path)
        return path
    torch.save(tensors | {"context_length": torch.tensor(9)}, path)
    return path


def _configs(path: Path) -> tuple[ClipConfig, ClipTextConfig]:
    found = import_section(path, kind=None, stage=None)
    assert [one.stage for one in (found, *found.also)] == ["encoder", "text"]
    assert found.note is None
    return check_section("encoder", found.section).model, check_section("text", found.sections["text"]).encoder


def _close(got: Tensor, wanted: Tensor) -> None:
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max() / wanted.abs().max()) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_towers_are_those_of_transformers(layout: str, clip: Any, tmp_path: Path) -> None:
    image_config, text_config = _configs(_file(clip, layout, tmp_path))
    assert (image_config.heads, text_config.heads, text_config.quick_gelu, image_config.quick_gelu) == (
        2,
        2,
        True,
        True,
    )
    images = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    encoder, _ = import_encoder(image_config)
    pixels = preprocess(images, px=16, mean=image_config.mean, std=image_config.std)
    _close(encoder.raw(images), clip.get_image_features(pixel_values=pixels).pooler_output)
    _close(encoder(images), standardize(clip.get_image_features(pixel_values=pixels).pooler_output))

    text = import_text_encoder(text_config)
    reading = text.read(["Red apple", "red"])
    red, apple = 512 + MERGES.index("re d</w>"), 512 + MERGES.index("app le</w>")
    start, end = N_TOKENS - 2, N_TOKENS - 1
    wanted = clip.get_text_features(input_ids=torch.tensor([[start, red, apple, end]])).pooler_output
    _close(reading.pooled[:1], scaled(wanted))
    assert (reading.n_tokens, reading.n_unknown) == ([4, 3], [0, 0])


def test_the_text_tower_lives_in_its_artifact(clip: Any, tmp_path: Path) -> None:
    _, config = _configs(_file(clip, "openai", tmp_path))
    model, out = TextModel(import_text_encoder(config), states=True), FolderArtifact(tmp_path / "artifact")
    save(config, model, out)
    for path in tmp_path.glob("*.*"):
        path.unlink()  # the artifact needs nothing of it
    a, b = model.rows(["red apple", ""]), load(out).rows(["red apple", ""])
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert a["tokens.mask"].sum(1).tolist() == [4, 0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_towers_are_written_back_equal(layout: str, clip: Any, tmp_path: Path) -> None:
    found = read_checkpoint(_file(clip, layout, tmp_path))
    assert (found.kind, set(found.parts)) == ("clip", {"clip", "clip-text"})
    back: dict[str, Tensor] = {}
    for kind, tensors in found.parts.items():
        imported = import_tensors(kind, tensors)
        back |= export_tensors(kind, imported.weights, imported.kept)
    wanted = _openai(clip)
    assert back.keys() - {"context_length", "input_resolution"} == wanted.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in wanted.items())


def test_what_is_missing_beside_a_file_is_named(clip: Any, tmp_path: Path) -> None:
    path = _file(clip, "open_clip", tmp_path)
    (tmp_path / "open_clip_config.json").unlink()
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").unlink()
    found = import_section(path, kind=None, stage=None)
    assert "quick_gelu: false is assumed" in (found.note or "")
    assert "text.encoder.tokenizer has to name one" in (found.also[0].note or "")
    config = check_section("text", found.sections["text"]).encoder
    with pytest.raises(WeightsError, match=r"tokenizer of CLIP's text tower does not exist[\s\S]*tokenizer.json"):
        import_text_encoder(config)
    (tmp_path / "tokenizer.json").write_text("{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    with pytest.raises(WeightsError, match=f"not recorded[\\s\\S]*{digest}"):
        import_text_encoder(config)
    recorded = config.model_copy(update={"tokenizer": config.tokenizer.model_copy(update={"sha256": digest})})
    with pytest.raises(WeightsError, match="is no tokenizer"):
        import_text_encoder(recorded)


def test_a_file_of_another_model_is_refused(clip: Any, tmp_path: Path) -> None:
    image_config, text_config = _configs(_file(clip, "openai", tmp_path))
    with pytest.raises(WeightsError, match=r"missing: visual.transformer.resblocks.2|wrong shape"):
        import_encoder(image_config.model_copy(update={"depth": 3}))
    torch.save({"cls_token": torch.zeros(1), "head.weight": torch.zeros(1)}, tmp_path / "deit.pth")
    digest = hashlib.sha256((tmp_path / "deit.pth").read_bytes()).hexdigest()
    file = {"uri": str(tmp_path / "deit.pth"), "sha256": digest}
    with pytest.raises(WeightsError, match="is a deit file"):
        import_text_encoder(ClipTextConfig.model_validate(text_config.model_dump() | {"weights": file}))


def test_both_sections_are_written(clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changed, question = write_sections(import_section(_file(clip, "openai", tmp_path), kind=None, stage=None))
    assert changed == ["encoder", "text"]
    assert question is not None, "the other sections are not there"
    alone = import_section(tmp_path / "clip.pt", kind="clip-text", stage=None)
    assert (alone.stage, alone.also) == ("text", ())
    with pytest.raises(ConfigError, match="imported by `encoder`"):
        import_section(tmp_path / "clip.pt", kind=None, stage="rdm")


def test_an_archive_with_anything_else_is_not_read(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(_Scripted({"a.b": torch.arange(4.0).half()})), tmp_path / "whole.pt")
    assert read_tensors(tmp_path / "whole.pt")["a.b"].tolist() == [0, 1, 2, 3]
    data = (tmp_path / "whole.pt").read_bytes()
    for old, new in ((b"_rebuild_tensor_v2", b"_rebuild_parameter"), (b"HalfStorage", b"ByteStorage")):
        assert old in data
        assert len(old) == len(new)
        (tmp_path / "odd.pt").write_bytes(data.replace(old, new))
        with pytest.raises(WeightsError):
            read_tensors(tmp_path / "odd.pt")
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError):
        read_tensors(tmp_path / "cut.pt")
