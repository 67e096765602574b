"""Settings: where and how fast things run, never what they compute. `RCG_*`, a profile file, then defaults."""

import difflib
import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from components.errors import ConfigError

LOCAL_FILE = Path(".rcg/local.yaml")
"""Written by `rcg snapshot`: this checkout's own settings, git-ignored."""

_NOT_OURS = ("RCG_RIGS", "RCG_S3_", "RCG_CLUSTER_")
"""Prefixes that belong to the test rigs."""


class Settings(BaseSettings):
    """One checkout's view of the world. Nothing here changes an artifact's bits or a fingerprint."""

    model_config = SettingsConfigDict(
        env_prefix="RCG_", extra="forbid", frozen=True, use_attribute_docstrings=True, env_ignore_empty=True
    )

    profile: Path | None = None
    """A YAML file with any of these settings; the environment wins over it."""
    store: str = ".rcg/store"
    """Where artifacts live: a folder, file:///path or s3://bucket/prefix."""
    source: str = "demo"
    """Where the images are: `demo`, a folder or s3://bucket/prefix. `rcg snapshot` remembers it in .rcg/local.yaml."""
    executor: Literal["inline", "ray"] = "inline"
    """inline: in this process. ray: Ray Train workers."""
    workers: int = Field(default=1, ge=1)
    """Ray Train workers of one stage; inline always has one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU if there is one; cuda without one is an error."""
    threads: int = Field(default=2, ge=1)
    """Threads that decode images beside torch's own."""
    checkpoint_every: int = Field(default=500, ge=1)
    """Training steps between checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints kept per run."""
    max_failures: int = Field(default=2, ge=0)
    """How often the ray executor restarts lost workers before it gives up."""
    mix_versions: bool = False
    """Allow one artifact to hold parts that different library versions made; otherwise an error names them."""
    mlflow_uri: str = "sqlite:///mlflow.db"
    """MLflow tracking and registry server; `off` disables tracking."""
    mlflow_experiment: str = "rcg"
    """Experiment that the runs are logged to."""
    model_name: str = "rcg"
    """Name of the registered model."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (the signature is pydantic's)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _YamlSource(settings_cls)


class _YamlSource(PydanticBaseSettingsSource):
    """Values of the profile file over those of .rcg/local.yaml."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002  (abstract, unused)
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        values = _read_yaml(LOCAL_FILE) if LOCAL_FILE.exists() else {}
        profile = os.environ.get("RCG_PROFILE")
        if profile:
            if not Path(profile).is_file():
                raise ConfigError(
                    "the profile file does not exist", got=profile, fix="set RCG_PROFILE to a YAML file or unset it"
                )
            values |= _read_yaml(Path(profile))
        return values


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML", got=error, fix="mend the file or delete it") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold settings by name", got=type(values).__name__, expected="key: value lines")
    return values


def load_settings() -> Settings:
    """Read and check the settings. Raises: ConfigError naming every wrong or unknown one."""
    known = {f"RCG_{name.upper()}" for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith("RCG_") and name not in known and not name.startswith(_NOT_OURS):
            close = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {close[0]}?" if close else f"unset it; known are {', '.join(sorted(known))}"
            raise ConfigError("unknown setting in the environment", got=name, fix=fix)
    try:
        return Settings()
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ConfigError("settings are wrong", got="; ".join(wrong), fix="see docs/reference/settings.md") from error


def remember_source(source: str) -> None:
    """Keep the source of this checkout in .rcg/local.yaml."""
    values = _read_yaml(LOCAL_FILE) if LOCAL_FILE.exists() else {}
    LOCAL_FILE.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(values | {"source": source}, sort_keys=True)
    temporary = LOCAL_FILE.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(LOCAL_FILE)
