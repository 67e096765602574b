"""Settings: one section each, whatever form they come in, and who wins."""

from pathlib import Path

import pytest

from components.errors import ConfigError
from flows.settings import SECTIONS, Settings, load_settings, remember_source, variables


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in variables():
        monkeypatch.delenv(name, raising=False)


def test_names_are_unique_so_that_a_flat_name_has_one_place() -> None:
    names = [*Settings.model_fields, *(name for kind in SECTIONS.values() for name in kind.model_fields)]
    assert len(names) == len(set(names))


def test_a_misspelt_variable_is_told_the_nearest_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCG_WORKERZ", "2")
    with pytest.raises(ConfigError, match="RCG_WORKERS"):
        load_settings()


def test_flat_and_nested_variables_are_the_same_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCG_WORKERS", "3")
    monkeypatch.setenv("RCG_CLUSTER__IMAGE", "name@sha256:1")
    monkeypatch.setenv("RCG_JOB_LABELS", '{"queue": "a"}')
    monkeypatch.setenv("RCG_MLFLOW_URI", "")
    settings = load_settings()
    assert (settings.worker.workers, settings.cluster.image) == (3, "name@sha256:1")
    assert settings.cluster.job_labels == {"queue": "a"}
    assert settings.tracking.mlflow_uri == "sqlite:///mlflow.db", "an empty variable is no setting"


@pytest.mark.parametrize("text", ["device: cpu\nworkers: 2\n", "worker:\n  device: cpu\n  workers: 2\n"])
def test_environment_over_profile_over_checkout(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("profile.yaml").write_text(f"{text}source: of-profile\n")
    remember_source(Path(), "of-checkout")
    assert load_settings().source == "of-checkout"
    monkeypatch.setenv("RCG_PROFILE", "profile.yaml")
    monkeypatch.setenv("RCG_WORKERS", "5")
    settings = load_settings()
    assert settings.source == "of-profile"
    assert (settings.worker.device, settings.worker.workers) == ("cpu", 5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RCG_WORKRES", "2", "RCG_WORKERS"),
        ("RCG_WORKER__WORKRES", "2", "RCG_WORKER__WORKERS"),
        ("RCG_WORKERS", "many", r"worker\.workers"),
        ("RCG_JOB_LABELS", "queue", "JSON"),
        ("RCG_PROFILE", "nowhere.yaml", "does not exist"),
        ("RCG_EVENT_INTERVAL_S", "nan", r"worker\.event_interval_s"),
        ("RCG_EVENT_INTERVAL_S", "inf", r"worker\.event_interval_s"),
        ("RCG_EVENT_INTERVAL_S", "1e9", r"worker\.event_interval_s"),
    ],
)
def test_wrong_ones_are_named(name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        load_settings()


@pytest.mark.parametrize("text", ["colour: red\n", "worker:\n  colour: red\n", "worker: fast\n", "- 1\n"])
def test_a_profile_with_something_else_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("profile.yaml").write_text(text)
    monkeypatch.setenv("RCG_PROFILE", "profile.yaml")
    with pytest.raises(ConfigError):
        load_settings()
