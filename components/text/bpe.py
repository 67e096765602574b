"""Byte-level byte-pair encoding (1508.07909; of bytes as in GPT-2): texts -> ids of tokens.

tokenizers is imported when an encoding is built or learned.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from components.documents import read_bytes
from components.errors import ConfigError, WeightsError
from components.text.config import BpeConfig
from components.weights import UNRECORDED, local_path
from components.weights_file import WeightsFile

BPE = "bpe.json"
"""File of a saved encoding: a tokenizer.json as Hugging Face has it."""
_END = "<|endoftext|>"
WHERE = "text.bpe.file"


class Bpe:
    """An encoding. Any text has tokens, as any text is bytes; upper case is read as lower case, as GLIDE does.

    `data`: the bytes of a tokenizer.json. `max_tokens`: that are read of a text.
    Raises: ConfigError without the library, WeightsError for other bytes.
    """

    def __init__(self, data: bytes, max_tokens: int) -> None:
        self.data, self.max_tokens = data, max_tokens
        try:
            self._tokenizer = _library().Tokenizer.from_str(data.decode())
        except ConfigError:
            raise
        except Exception as error:  # parsers raise anything at all on damaged bytes
            raise WeightsError("this is no tokenizer.json", got=error, fix="download it again") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.n_ids = int(self._tokenizer.get_vocab_size())
        if max(self._tokenizer.get_vocab().values(), default=-1) >= self.n_ids:
            expected = f"0 … {self.n_ids - 1}"
            raise WeightsError("ids of this tokenizer.json are not numbered from 0 on", expected=expected)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, before it is cut."""
        return [len(ids) for ids in self._encoded(texts)]

    def ids(self, texts: Sequence[str]) -> Int[Tensor, "n m"]:
        """int32, -1 behind the last token; what is too long is cut off."""
        out = torch.full((len(texts), self.max_tokens), -1, dtype=torch.int32)
        for row, ids in zip(out, self._encoded(texts), strict=True):
            read = ids[: self.max_tokens]
            row[: len(read)] = torch.tensor(read, dtype=torch.int32)
        return out

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        lower = [text.lower() for text in texts]
        try:
            return [found.ids for found in self._tokenizer.encode_batch(lower, add_special_tokens=False)]
        except Exception as error:  # the library has no class of its own
            raise WeightsError("this tokenizer.json has no token for every text", got=error) from error


def built(config: BpeConfig, captions: Iterable[str]) -> Bpe:
    """The encoding of the config's file, or one that is learned on captions, which are tidy.

    Raises: ConfigError without the library, WeightsError for another file than the config's digest says.
    """
    data = _checked(config.file) if config.file is not None else _learned(captions, config.n_ids or 0)
    return Bpe(data, config.max_tokens)


def _checked(file: WeightsFile) -> bytes:
    path = local_path(file)
    data = read_bytes(path, WeightsError, fix="copy the file there; gpt2's is the tokenizer.json of its folder")
    found, wanted = hashlib.sha256(data).hexdigest(), file.sha256.lower()
    if found != wanted:
        what = "is not recorded" if wanted == UNRECORDED else "is another one"
        raise WeightsError(
            f"the digest of the tokenizer {what}",
            got=f"{path} has {found}",
            expected=f"that of {WHERE}.sha256",
            fix=f"if you trust the file, set {WHERE}.sha256 to it",
        )
    return data


def _learned(captions: Iterable[str], n_ids: int) -> bytes:
    """All bytes, then the most frequent pairs. What is learned does not depend on the captions' order."""
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=n_ids,
        min_frequency=2,
        special_tokens=[_END],
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((caption.lower() for caption in captions), trainer)
    return str(tokenizer.to_str()).encode()


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        fix = "pip install 'rcg-on-kubernetes[text]'"
        raise ConfigError("a byte-pair encoding needs tokenizers", got=error, fix=fix) from error
    return tokenizers
