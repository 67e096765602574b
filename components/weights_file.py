"""Where a training starts from: a weights file of one's own, or a finished run."""

import re

from pydantic import Field

from components.config import Config


class WeightsFile(Config):
    """A .safetensors or torch file of one's own. Nothing is fetched from a hub."""

    uri: str = Field(min_length=1)
    """A path, a file:// URI or s3://bucket/key; on a cluster every pod has to reach it."""
    sha256: str = Field(pattern="^[0-9a-fA-F]{64}$")
    """Digest of the file, as `sha256sum FILE` prints it; 64 zeros: not recorded yet."""


def trained_or_imported(section: str, train: object, weights: object) -> None:
    """Raises: ValueError when a params section neither trains nor names weights."""
    if train is None and weights is None:
        raise ValueError(f"{section}.train and {section}.weights are both null, so it learns nothing; set one of them")


def content_digest(text: str) -> str:
    """Validator of `init`. Raises: ValueError for anything that may point elsewhere tomorrow, e.g. an alias."""
    if not re.fullmatch("sha256:[0-9a-f]{64}", text):
        raise ValueError(
            "init names one finished run by `sha256:` and its content digest; a moving alias such as `champion` "
            "belongs in retrain.init, which resolves it"
        )
    return text


def one_start(section: str, weights: object, init: object) -> None:
    """Raises: ValueError when a params section names two sets of weights to start from."""
    if weights is not None and init is not None:
        raise ValueError(f"{section}.weights and {section}.init both say where to start from; set one of them to null")
