"""A published text encoder: BERT and its kin, MiniLM and other sentence encoders, T5's encoder, CLIP's text tower.

The folder is one of Hugging Face's: config.json, tokenizer.json and the weights. Nothing is fetched, and no code of the
folder is run. transformers and tokenizers are imported when an encoder is built.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from components.base import Reader
from components.documents import parse_mapping, read_bytes
from components.errors import ConfigError, WeightsError
from components.files import file_sha256
from components.text.base import Reading, TextEncoder, scaled
from components.text.config import ClipTextConfig, PretrainedConfig
from components.weights import UNRECORDED, local_path

WHERE = "text.encoder.folder"
ARCHITECTURE, TOKENIZER = "architecture.json", "tokenizer.json"
"""Files of a saved encoder besides the weights: the folder's config.json, and its tokenizer."""
_MAY_LACK = ("pooler.", "embeddings.position_ids")
"""Beginnings of tensors that a folder need not have: no embedding reads them."""


class Pretrained(TextEncoder):
    """The states of the last layer, as they are, and their mean, their first or the model's own pooled output."""

    def __init__(
        self, config: PretrainedConfig | ClipTextConfig, network: nn.Module, files: Mapping[str, bytes]
    ) -> None:
        super().__init__()
        self.network, self.files = network, dict(files)
        self.pooling, self.max_tokens = config.pooling, config.max_tokens
        facts: Any = network.config
        self.dim = facts.projection_dim if _is_clip(facts) and config.pooling == "model" else facts.hidden_size
        self.state_dim = facts.hidden_size
        longest = getattr(facts, "max_position_embeddings", None)
        if longest is not None and config.max_tokens > longest:
            got, fix = config.max_tokens, f"set text.encoder.max_tokens: {longest}"
            raise ConfigError("the text encoder does not read so many tokens", got=got, expected=longest, fix=fix)
        self._tokenizer = _tokenizer(files[TOKENIZER])
        self._unknown = _unknown(files[TOKENIZER])

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Reading:
        whole = self._encoded(texts, cut=False)
        device = next(self.network.parameters()).device
        ids = torch.zeros(len(texts), self.max_tokens, dtype=torch.int64)
        mask = torch.zeros(len(texts), self.max_tokens, dtype=torch.bool)
        for i, found in enumerate(self._encoded(texts, cut=True)):
            ids[i, : len(found.ids)] = torch.tensor(found.ids)
            mask[i, : len(found.ids)] = True
        ids, mask = ids.to(device), mask.to(device)
        out: Any = self.network(input_ids=ids, attention_mask=mask.long())
        states = out.last_hidden_state * mask[:, :, None]
        unknown = [
            sum(t == self._unknown for t, s in zip(one.ids, one.special_tokens_mask, strict=True) if not s)
            for one in whole
        ]
        return Reading(scaled(self._pooled(out, states, mask)), states, [len(one.ids) for one in whole], unknown)

    def _pooled(
        self, out: Any, states: Float[Tensor, "n m state_dim"], mask: Bool[Tensor, "n m"]
    ) -> Float[Tensor, "n dim"]:
        if self.pooling == "cls":
            return states[:, 0]
        if self.pooling == "mean":
            return states.sum(1) / mask.sum(1, keepdim=True)
        pooled: Tensor | None = getattr(out, "text_embeds", None)
        pooled = getattr(out, "pooler_output", None) if pooled is None else pooled
        if pooled is None:
            raise ConfigError("this text encoder has no pooled output", fix="set text.encoder.pooling: mean")
        return pooled

    def _encoded(self, texts: Sequence[str], *, cut: bool) -> list[Any]:
        if cut:
            self._tokenizer.enable_truncation(self.max_tokens)
        else:
            self._tokenizer.no_truncation()
        found: list[Any] = self._tokenizer.encode_batch(list(texts))
        return found


def imported(config: PretrainedConfig) -> Pretrained:
    """The encoder out of the folder that the config names. Raises: WeightsError, ConfigError."""
    if config.folder is None:
        raise ConfigError(f"{WHERE} is null", expected="{uri: FOLDER, sha256: DIGEST}", fix="name the encoder's folder")
    folder = local_path(config.folder)
    _check_digest(folder, config.folder.sha256)
    files = {ARCHITECTURE: read_bytes(folder / "config.json"), TOKENIZER: read_bytes(folder / TOKENIZER)}
    kind = _kind(files[ARCHITECTURE], str(folder))
    library().utils.logging.disable_progress_bar()
    try:
        options = {"local_files_only": True, "output_loading_info": True, "dtype": torch.float32}
        network, told = kind.from_pretrained(folder, **options)
    except Exception as error:  # parsers raise anything at all on damaged or foreign files
        fix = "use the config.json that belongs to the weights, or download the folder again"
        raise WeightsError(f"{folder} holds no text encoder that can be read", got=error, fix=fix) from error
    lost = [name for name in told["missing_keys"] if not name.removeprefix("text_model.").startswith(_MAY_LACK)]
    if wrong := sorted([*lost, *(str(name) for name in told["mismatched_keys"])]):
        raise WeightsError(
            f"{folder} holds another model's weights",
            got=f"without {', '.join(wrong[:5])}",
            expected=f"the tensors of {kind.__name__}",
            fix="use the config.json that belongs to the weights",
        )
    return Pretrained(config, network.eval(), files)


def rebuilt(config: PretrainedConfig, artifact: Reader) -> Pretrained:
    """A saved encoder, with weights still to be loaded."""
    files = {name: read_bytes(artifact.path(name)) for name in (ARCHITECTURE, TOKENIZER)}
    kind = _kind(files[ARCHITECTURE], str(artifact.path(ARCHITECTURE)))
    network = kind._from_config(_facts(files[ARCHITECTURE], ARCHITECTURE), dtype=torch.float32)
    return Pretrained(config, network.eval(), files)


def folder_digest(folder: Path) -> str:
    """sha256 of what `sha256sum config.json tokenizer.json WEIGHTS… | sha256sum` hashes, files in the order of names.

    Raises: WeightsError naming the files that the folder lacks.
    """
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    files = [folder / "config.json", folder / TOKENIZER, *(weights or [folder / "model.safetensors"])]
    if missing := [path.name for path in files if not path.is_file()]:
        raise WeightsError(
            "the folder of the text encoder is not whole",
            got=f"{folder} without {', '.join(missing)}",
            fix="download it whole; AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) makes tokenizer.json",
        )
    lines = [f"{file_sha256(path)}  {path.name}\n" for path in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_digest(folder: Path, wanted: str) -> None:
    """Raises: WeightsError for other files than those whose digest is in params.yaml, or none recorded yet."""
    found = folder_digest(folder)
    if found != wanted.lower():
        what = "is not recorded" if wanted == UNRECORDED else "is another one"
        raise WeightsError(
            f"the digest of the text encoder's folder {what}",
            got=f"{folder} has {found}",
            expected=f"that of {WHERE}.sha256",
            fix=f"if you trust the files, set {WHERE}.sha256 to it",
        )


def library() -> Any:
    """transformers. Raises: ConfigError without it, or without tokenizers."""
    try:
        import tokenizers  # noqa: F401
        import transformers
    except ImportError as error:
        fix = "pip install 'rcg-on-kubernetes[text]', or use encoder: {kind: words, …}, which needs nothing"
        raise ConfigError("a pretrained text encoder needs transformers and tokenizers", got=error, fix=fix) from error
    return transformers


def _facts(architecture: bytes, where: str) -> Any:
    """The folder's config as transformers knows it; of CLIP that of the text tower."""
    values = parse_mapping(architecture, where)
    name = values.get("model_type")
    known = library().CONFIG_MAPPING
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"transformers does not know the model of {where}", got=name, fix="use another encoder")
    try:
        facts = known[name].from_dict(values)
        return facts.text_config if name == "clip" else facts
    except Exception as error:  # as in imported()
        raise WeightsError(f"{where} is not as transformers writes it", got=error, fix="download it again") from error


def _kind(architecture: bytes, where: str) -> Any:
    """The class of transformers that has the encoder alone."""
    transformers, facts = library(), _facts(architecture, where)
    if _is_clip(facts):
        return transformers.CLIPTextModelWithProjection
    if facts.model_type in ("t5", "mt5", "umt5"):
        return getattr(transformers, {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}[facts.model_type] + "EncoderModel")
    if type(facts) not in transformers.MODEL_MAPPING or not hasattr(facts, "hidden_size"):
        raise ConfigError(f"the model of {where} reads no text", got=facts.model_type, fix="use another encoder")
    return transformers.MODEL_MAPPING[type(facts)]


def _is_clip(facts: Any) -> bool:
    return bool(facts.model_type == "clip_text_model")


def _tokenizer(data: bytes) -> Any:
    library()
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:  # parsers raise anything at all on damaged bytes
        raise WeightsError(f"{TOKENIZER} is no tokenizer", got=error, fix="download it again") from error
    tokenizer.no_padding()
    return tokenizer


def _unknown(data: bytes) -> int | None:
    """The id of unknown tokens; None where there are none."""
    model = json.loads(data)["model"]
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    vocab = model.get("vocab")
    return vocab.get(model.get("unk_token")) if isinstance(vocab, dict) else None
