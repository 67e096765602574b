"""Imported weights: a local file and the digest that pins it."""

from pathlib import Path
from urllib.parse import unquote, urlparse

from pydantic import Field
from torch import Tensor

from components.base import Config
from components.errors import ConfigError, WeightsError
from components.weights import read_tensors


class WeightsFile(Config):
    """A .safetensors or torch file. Nothing is ever downloaded."""

    uri: str = Field(min_length=1)
    """A path or a file:// URI."""
    sha256: str = Field(pattern="^[0-9a-fA-F]{64}$")
    """Digest of the file, as `sha256sum FILE` prints it."""

    def path(self) -> Path:
        """Raises: ConfigError for any other kind of URI."""
        parts = urlparse(self.uri)
        if parts.scheme == "":
            return Path(self.uri)
        if parts.scheme == "file" and parts.netloc in ("", "localhost"):
            return Path(unquote(parts.path))
        raise ConfigError(
            "weights are read from a path or a file:// URI", got=self.uri, fix="copy the file to a local disk first"
        )

    def read(self, what: str) -> dict[str, Tensor]:
        """Named tensors; `what` names the model in messages. Raises: WeightsError, ConfigError."""
        path = self.path()
        if not path.is_file():
            raise WeightsError(
                f"the weights file of {what} does not exist",
                got=path,
                expected=f"a .safetensors or torch file with sha256 {self.sha256}",
                fix=f"put the file there, or set encoder.model.weights.uri; record its digest with `sha256sum {path}` "
                "in encoder.model.weights.sha256",
            )
        return read_tensors(path, self.sha256)


def required(weights: WeightsFile | None) -> WeightsFile:
    """Raises: ConfigError for null."""
    if weights is None:
        raise ConfigError(
            "this encoder is not trained here and has no weights", got="encoder.model.weights: null",
            expected="{uri: FILE, sha256: DIGEST}", fix="name the file, and its digest as `sha256sum FILE` prints it",
        )  # fmt: skip
    return weights
