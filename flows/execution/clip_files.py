"""What a CLIP file's neighbors tell: its tokenizer, and what no tensor's shape gives. Imports without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.documents import read_json
from components.errors import WeightsError
from components.files import file_sha256
from components.text.config import ClipTextConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

TEXT, GLIDE_TEXT = "clip-text", "glide-clip-text"
KINDS = ("clip", TEXT)
_GLIDE_VOCABULARY = 65_536
"""Rows of the table in GLIDE's file, of which the tokenizer uses 49,408."""
_TOKENIZERS = ("tokenizer.json", "bpe_simple_vocab_16e6.txt.gz")
_SAYS = ("config.json", "open_clip_config.json")
_OWN = "encoder.network."


def text_section(
    base: Mapping[str, Any], model: Mapping[str, Any], pin: Mapping[str, str], path: Path
) -> dict[str, Any]:
    """The section text: the text tower, in the space that it shares with the image tower."""
    found = next((beside for name in _TOKENIZERS if (beside := path.with_name(name)).is_file()), None)
    tokenizer = {
        "uri": str(found or path.with_name(_TOKENIZERS[0])),
        "sha256": file_sha256(found) if found else "0" * 64,
    }
    encoder = {"kind": "clip", "weights": dict(pin), "tokenizer": tokenizer, **model}
    shared = None if is_glides(model) else {"dim": None, "seed": 0, "train": None}
    return {**base, "encoder": encoder, "states": base.get("states", False), "joint": shared}


def is_glides(model: Mapping[str, Any]) -> bool:
    """Whether a text tower is that of GLIDE's guide, whose image tower is no encoder."""
    return bool(model.get("vocabulary") == _GLIDE_VOCABULARY)


def facts_beside(kind: str, path: Path) -> dict[str, Any]:
    """Activation and heads, out of Hugging Face's config.json or open_clip's; nothing where neither says it."""
    hf, open_clip = (_read(path.with_name(name)) for name in _SAYS)
    if isinstance(tower := hf.get("text_config" if kind == TEXT else "vision_config"), dict):
        activation, heads = tower.get("hidden_act", "quick_gelu"), tower.get("num_attention_heads")
        return {"quick_gelu": activation == "quick_gelu", **({"heads": heads} if heads else {})}
    if isinstance(model := open_clip.get("model_cfg"), dict):
        tower = model.get("text_cfg" if kind == TEXT else "vision_cfg")
        heads = tower.get("heads") if isinstance(tower, dict) else None
        return {"quick_gelu": model.get("quick_gelu") is True, **({"heads": heads} if heads else {})}
    return {}


def assumed(section: Mapping[str, Any], path: Path) -> str | None:
    """What the file and its neighbors do not say."""
    model = section.get("model") or section["encoder"]
    told = []
    unsaid = not model["quick_gelu"] and not is_glides(model)
    if unsaid and not any(path.with_name(name).is_file() for name in _SAYS):
        told.append(f"quick_gelu: false is assumed, as neither {' nor '.join(_SAYS)} lies beside it")
    if "tokenizer" in model and not Path(model["tokenizer"]["uri"]).is_file():
        told.append(f"neither {' nor '.join(_TOKENIZERS)} lies beside it; text.encoder.tokenizer has to name one")
    return "; ".join(told) or None


def tower(config: ClipTextConfig) -> "nn.Module":
    """The text tower with fresh weights, without a tokenizer. Raises: ConfigError without transformers."""
    from components.text.clip import network

    return network(config)


def own(weights: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """The tower's tensors among those of an artifact of the stage `text`."""
    return {name.removeprefix(_OWN): t for name, t in weights.items() if name.startswith(_OWN)}


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path, WeightsError) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
