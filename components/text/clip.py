"""CLIP's text tower (2103.00020) out of a file that holds both towers, and the tokenizer that OpenAI gives as a list.

The network is transformers'; its embedding is what the last token of a text becomes, in the space of both towers.
"""

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

from torch import nn

from components.base import Reader
from components.documents import read_bytes
from components.errors import WeightsError
from components.files import file_sha256
from components.text.config import ClipTextConfig
from components.text.pretrained import TOKENIZER, Pretrained, library
from components.weights import UNRECORDED, local_path, required
from components.weights_file import WeightsFile

WHERE = "text.encoder.tokenizer"
_START, _END = "<|startoftext|>", "<|endoftext|>"
_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_N_MERGES = 49_152 - 256 - 2
"""Lines of OpenAI's list that its tokenizer reads."""
_MOST_BYTES = 64_000_000


def build(config: ClipTextConfig, artifact: Reader | None) -> Pretrained:
    """With weights still to be loaded; the tokenizer is the artifact's, or that of the file that the config names.

    Raises: ConfigError without transformers; WeightsError for a tokenizer that is not there, or another one.
    """
    data = _given(required(config.tokenizer, WHERE)) if artifact is None else read_bytes(artifact.path(TOKENIZER))
    return Pretrained(config, network(config).eval(), {TOKENIZER: data})


def network(config: ClipTextConfig) -> nn.Module:
    """The tower itself, with fresh weights. Its embedding is read at the largest token, which ends a text."""
    transformers = library()
    facts = transformers.CLIPTextConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        intermediate_size=round(config.width * config.mlp_ratio),
        projection_dim=config.joint_dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        max_position_embeddings=config.n_positions,
        hidden_act="quick_gelu" if config.quick_gelu else "gelu",
        bos_token_id=config.vocabulary - 2,
        eos_token_id=2,
    )
    made: nn.Module = transformers.CLIPTextModelWithProjection(facts)
    return made


def _given(file: WeightsFile) -> bytes:
    """A tokenizer.json, out of one or out of OpenAI's list of merges."""
    path = local_path(file)
    if not path.is_file():
        raise WeightsError(
            "the tokenizer of CLIP's text tower does not exist",
            got=file.uri,
            expected="tokenizer.json of a Hugging Face folder, or bpe_simple_vocab_16e6.txt.gz of OpenAI's code",
            fix=f"put the file there, or set {WHERE}.uri",
        )
    if (found := file_sha256(path)) != file.sha256.lower():
        what = "is not recorded" if file.sha256 == UNRECORDED else "is another one"
        raise WeightsError(
            f"the digest of CLIP's tokenizer {what}",
            got=f"{path} has {found}",
            expected=f"that of {WHERE}.sha256",
            fix=f"if you trust the file, set {WHERE}.sha256 to it",
        )
    return read_bytes(path) if path.suffix == ".json" else _of_merges(path)


def _of_merges(path: Path) -> bytes:
    """OpenAI's list: a heading, then two parts a line in the order in which they are joined."""
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
                raw = packed.read(_MOST_BYTES)
        lines = raw.decode().split("\n")[1 : _N_MERGES + 1]
        merges = [(a, b) for a, b in (line.split() for line in lines if line)]
        return _tokenizer(merges).encode()
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise WeightsError(f"{path} is no list of merges", got=error, fix="download it again") from error


def _tokenizer(merges: list[tuple[str, str]]) -> str:
    """Byte-level BPE in lower case, words marked at their ends. Raises: ValueError for parts that nothing makes."""
    library()
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    alphabet = _alphabet()
    words = [*alphabet, *(f"{c}</w>" for c in alphabet), *("".join(pair) for pair in merges), _START, _END]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer: Any
    try:
        tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=_END))
    except Exception as error:  # the library raises its own kinds
        raise ValueError(str(error)) from error
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    ends = ((_END, vocabulary[_END]), (_START, vocabulary[_START]))
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=False, add_prefix_space=False)
    tokenizer.add_special_tokens([_START, _END])
    out: str = tokenizer.to_str()
    return out


def _alphabet() -> list[str]:
    """A printable character for each byte, in OpenAI's order: those that are printable, then the others from U+0100."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, plain), *(chr(256 + i) for i in range(256 - len(plain)))]
