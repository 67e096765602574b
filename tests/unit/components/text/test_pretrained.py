"""Published text encoders, on small random ones; those that need transformers are skipped where it is not."""

import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import ConfigError, WeightsError
from components.text.config import PretrainedConfig
from components.text.model import TextModel, load, save
from components.text.pretrained import folder_digest
from components.weights_file import WeightsFile
from tests.support.folders import FolderArtifact

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "apple"]
TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "decoder": None,
    "added_tokens": [
        {
            "id": i,
            "content": word,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, word in enumerate(WORDS[:4])
    ],
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    "model": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {word: i for i, word in enumerate(WORDS)},
    },
}
SIZES = {"vocab_size": len(WORDS), "max_position_embeddings": 16}
BERT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
T5 = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
CLIP = BERT | {"projection_dim": 6, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0}
MODELS = {
    "BertModel": ("BertConfig", BERT | SIZES),
    "T5EncoderModel": ("T5Config", T5 | SIZES),
    "CLIPTextModelWithProjection": ("CLIPTextConfig", CLIP | SIZES),
}


def _library() -> Any:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("SKIPPED: transformers is not here (extra `text`), so published text encoders were not tried")
    return importlib.import_module("transformers")


def _folder(root: Path, model: str = "BertModel") -> Path:
    """A small random encoder as transformers saves it."""
    library, (config, sizes) = _library(), MODELS[model]
    with torch.random.fork_rng():
        network = getattr(library, model)(getattr(library, config)(**sizes))
        network.save_pretrained(root)
    (root / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return root


def _config(folder: Path, sha256: str | None = None, **changes: Any) -> PretrainedConfig:
    file = WeightsFile(uri=str(folder), sha256=sha256 or folder_digest(folder))
    return PretrainedConfig(**{"kind": "pretrained", "folder": file, "pooling": "mean", "max_tokens": 6} | changes)


@pytest.mark.parametrize(
    ("model", "pooling", "dim"),
    [
        ("BertModel", "mean", 8),
        ("BertModel", "cls", 8),
        ("BertModel", "model", 8),
        ("T5EncoderModel", "mean", 8),
        ("CLIPTextModelWithProjection", "model", 6),
    ],
)
def test_an_encoder_is_read_and_lives_in_its_artifact(model: str, pooling: str, dim: int, tmp_path: Path) -> None:
    config = _config(_folder(tmp_path / "published", model), pooling=pooling)
    made, out = TextModel(config.build(), states=True), FolderArtifact(tmp_path / "artifact")
    save(config, made, out)
    texts = ["a red apple", "a blue apple", "", "a red apple a blue apple"]
    rows = made.rows(texts)
    assert rows["text"].shape == (4, dim)
    assert rows["tokens"].shape == (4, 6, 8)
    assert rows["tokens.mask"].sum(1).tolist() == [5, 5, 0, 6]
    assert not torch.equal(rows["text"][0], rows["text"][1])
    for folder in (tmp_path / "published").iterdir():
        folder.unlink()  # the artifact needs nothing of it
    again = load(out).rows(texts)
    assert all(torch.equal(rows[name], again[name]) for name in rows)


def test_states_are_those_of_transformers_whatever_the_padding(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    whole = _library().BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        wanted = whole(input_ids=torch.tensor([[2, 4, 5, 7, 3]])).last_hidden_state[0]
    reading = TextModel(_config(folder).build(), states=True).read(["A red apple", "a pear"])
    torch.testing.assert_close(reading.states[0, :5], wanted)
    mean = wanted.mean(0)
    torch.testing.assert_close(reading.pooled[0], mean / mean.norm() * 8**0.5)
    assert reading.n_tokens == [5, 4]
    assert reading.n_unknown == [0, 1]


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(WeightsError, match="another model"):
        _config(folder).build()
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nobody"}))
    with pytest.raises(ConfigError, match="does not know"):
        _config(folder).build()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"so many tokens[\s\S]*max_tokens: 16"):
        _config(folder, max_tokens=17).build()


def test_what_a_folder_lacks_and_its_digest_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match=r"without tokenizer.json, model.safetensors"):
        _config(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    lines = "".join(
        f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("config.json", "model.safetensors", "tokenizer.json")
    )
    digest = hashlib.sha256(lines.encode()).hexdigest()
    assert folder_digest(tmp_path) == digest
    with pytest.raises(WeightsError, match=f"not recorded[\\s\\S]*{digest}"):
        _config(tmp_path, "0" * 64).build()
    with pytest.raises(WeightsError, match="another one"):
        _config(tmp_path, "1" * 64).build()


def test_without_the_library_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text('{"model_type": "bert"}')
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"\[text\][\s\S]*words"):
        _config(tmp_path).build()
