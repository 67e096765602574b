"""Settings: where and how fast things run, never what they compute. `RCG_*`, a profile file, then defaults."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from components.collection.packaged import PACKAGED
from components.collection.source_base import ARCHIVE_SUFFIXES, is_archive
from components.config import Config
from components.errors import ConfigError
from components.files import write_whole
from flows.yaml_files import read_yaml

LOCAL_FILE = Path(".rcg/local.yaml")
"""Written by `rcg snapshot`: this checkout's own settings, git-ignored."""

_NOT_OURS = ("RCG_RIGS", "RCG_S3_", "RCG_CLUSTER_")
"""Prefixes that belong to the test rigs."""

_CPUS = r"^\d+(\.\d+)?$|^\d+m$"
_INTERFACES = r"^[\^=]?[A-Za-z0-9._@-]+(,[A-Za-z0-9._@-]+)*$"
_MEMORY = r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"
Device = Literal["auto", "cpu", "cuda"]


class Section(Config):
    """Settings that belong together and are handed on whole."""


class WorkerSettings(Section):
    """How the processes of one stage work."""

    workers: int = Field(default=1, ge=1)
    """Ray Train workers of one stage; inline always has one."""
    device: Device = "auto"
    """auto takes a GPU if there is one; cuda without one is an error."""
    threads: int = Field(default=2, ge=1)
    """Threads that decode images beside torch's own."""
    checkpoint_every: int = Field(default=500, ge=1)
    """Training steps between checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints kept per run."""
    max_failures: int = Field(default=2, ge=0)
    """How often Ray replaces lost workers within one attempt before it gives up."""
    gpus_per_worker: int = Field(default=0, ge=0, le=1)
    """GPUs that each Ray worker asks for. With 1, a worker without a GPU is an error unless device is cpu."""
    compile: bool = False
    """Train on torch.compile's kernels: slow to start, faster on a GPU. Moves low-order bits, as `workers` does;
    run.json records it."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Most examples in one pass of a worker's model: gradients of a larger share of the batch are added up over several
    passes, in less memory. Of the stages rdm, pixels, guide and upsampler; in encoder, whose loss needs its rows
    together, the transformer takes so many at a time, and computes them twice. Moves low-order bits, as `workers` does;
    run.json records it."""
    shard: bool = False
    """Split weights, gradients and optimizer state of rdm, pixels, guide and upsampler over the workers (FSDP2), for
    models that do not fit one GPU; not with `compile`. Moves low-order bits, as `workers` does; run.json records it."""
    recompute: bool = False
    """Compute activations of transformer and UNet blocks again for the gradient in place of keeping them: less memory,
    about a third more time, the same bits."""
    gpu_memory_gb: float | None = Field(default=None, gt=0, le=10_000, allow_inf_nan=False)
    """Memory of one GPU in GB (10^9 bytes): `rcg explain` says which trainings will not fit it, and what to set."""
    mix_versions: bool = False
    """Allow one artifact to hold parts that different library versions made; otherwise an error names them."""
    event_interval_s: float = Field(default=2.0, ge=0, le=3600, allow_inf_nan=False)
    """Seconds between two objects of reports in the store."""
    fit_threads: bool | None = None
    """Train small models on fewer threads than torch has; unset: unless OMP_NUM_THREADS says how many."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if self.shard and self.compile:
            raise ValueError("shard and compile do not work together; set one of them")
        return self


class TrackingSettings(Section):
    """MLflow: tracking and the model registry."""

    mlflow_uri: str = "sqlite:///mlflow.db"
    """MLflow tracking and registry server; `off` disables tracking."""
    mlflow_experiment: str = "rcg"
    """Experiment that the runs are logged to."""
    model_name: str = "rcg"
    """Name of the registered model."""


class ClusterSettings(Section):
    """Kubernetes: where RayJobs go and what their pods ask for."""

    kube_context: str | None = None
    """Context of the kubeconfig (KUBECONFIG) for kuberay; unset: the current one, in a pod its service account."""
    lease_namespace: str | None = None
    """Namespace of the Kubernetes Lease that lets one `rcg retrain` work at a time; unset: a lock in the store does."""
    kube_namespace: str = "rcg-jobs"
    """Namespace of the RayJobs."""
    image: str = ""
    """Image of the pods, pinned: name@sha256:digest. `make image` prints it."""
    image_by_tag: bool = False
    """Accept an image that is named by a tag, which may move."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the nodes pull the image."""
    head_cpus: str | None = Field(default=None, pattern=_CPUS)
    """CPU request of the Ray head, e.g. 500m; unset, like those below: as in the RayJob template."""
    head_memory: str | None = Field(default=None, pattern=_MEMORY)
    """Memory of the Ray head, e.g. 4Gi."""
    worker_cpus: str | None = Field(default=None, pattern=_CPUS)
    """CPU request of each worker; its whole cores are torch's threads."""
    worker_memory: str | None = Field(default=None, pattern=_MEMORY)
    """Memory of each worker."""
    cpu_limits: bool = False
    """Limit every container to the CPUs that it requests, where a quota wants limits.cpu; idle ones go unused then."""
    gloo_interface: str | None = Field(default=None, pattern=_INTERFACES)
    """Network interface of CPU workers among each other, where pods have several: GLOO_SOCKET_IFNAME, e.g. eth0."""
    nccl_interface: str | None = Field(default=None, pattern=_INTERFACES)
    """The same of GPU workers: NCCL_SOCKET_IFNAME, e.g. eth0 or ^lo,docker."""
    job_labels: dict[str, str] = Field(default={})
    """More labels for RayJobs and their pods, as JSON: how Kueue, Volcano and YuniKorn are told of queues."""
    job_annotations: dict[str, str] = Field(default={})
    """More annotations, as JSON."""
    priority_class: str | None = None
    """PriorityClass of the pods."""
    service_account: str | None = None
    """Service account of the pods."""
    bucket_secret: str | None = None
    """Secret with the AWS_* variables of the bucket."""
    active_deadline_s: int | None = Field(default=None, ge=1)
    """A RayJob is ended after so long, whatever it does."""
    pre_running_deadline_s: int | None = Field(default=None, ge=1)
    """A RayJob that has not got its pods by then is ended and reported as short of capacity."""
    job_ttl_s: int | None = Field(default=None, ge=0)
    """How long the pods of a finished RayJob stay."""
    attempts: int = Field(default=3, ge=1)
    """RayJobs of one stage that may be lost in a row without any progress before the driver gives up."""
    submission_mode: Literal["K8sJobMode", "SidecarMode"] = "K8sJobMode"
    """How KubeRay submits; SidecarMode is faster, but Pod Security `restricted` refuses its pods."""
    rayjob_template: Path | None = None
    """RayJob manifest to start from; unset: k8s/base/rayjob.yaml."""
    shared_folder: Path | None = None
    """A folder that driver and pods see at the same path (mounted by the template): a store or source may lie there."""


class Settings(BaseSettings):
    """Where and how fast. Nothing here changes an artifact's bits or a fingerprint.

    Names are unique over all sections, so that a variable or a flat profile needs no section: RCG_WORKERS is
    worker.workers, and so is RCG_WORKER__WORKERS.
    """

    model_config = SettingsConfigDict(
        env_prefix="RCG_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    profile: Path | None = None
    """A YAML file with any of these settings; the environment wins over it."""
    store: str = ".rcg/store"
    """Where artifacts live: a folder, file:///path or s3://bucket/prefix."""
    source: str = "handwriting"
    """Where the images are: `handwriting` (5,000 digits), `demo` (1,797 of 8 px), a folder or s3://bucket/prefix;
    `rcg snapshot` keeps it in .rcg/local.yaml."""
    executor: Literal["inline", "ray", "kuberay"] = "inline"
    """inline: in this process. ray: Ray Train workers. kuberay: each stage but bundle is a RayJob on Kubernetes."""
    worker: WorkerSettings = WorkerSettings()
    tracking: TrackingSettings = TrackingSettings()
    cluster: ClusterSettings = ClusterSettings()
    rayjob: str = ""
    """Set by kuberay in its pods: name of the RayJob."""

    @model_validator(mode="before")
    @classmethod
    def _in_sections(cls, values: dict[str, Any]) -> dict[str, Any]:
        return nested(values)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (the signature is pydantic's)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, then the profile file, then .rcg/local.yaml."""
        assert isinstance(env_settings, EnvSettingsSource)  # noqa: S101  (so is it by default)
        env_settings.env_vars = {_in_section(name): value for name, value in env_settings.env_vars.items()}
        files = [_profile(), _read_yaml(LOCAL_FILE) if LOCAL_FILE.exists() else {}]
        return init_settings, env_settings, *(InitSettingsSource(settings_cls, nested(values)) for values in files)


SECTIONS: dict[str, type[Section]] = {
    "worker": WorkerSettings,
    "tracking": TrackingSettings,
    "cluster": ClusterSettings,
}
_SECTION_OF = {name: section for section, kind in SECTIONS.items() for name in kind.model_fields}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with each setting in its section; one that stands outside wins over one inside."""
    found = {name: value for name, value in values.items() if name not in _SECTION_OF}
    for name in values.keys() & _SECTION_OF.keys():
        section = found.get(_SECTION_OF[name], {})
        kept = section.model_dump() if isinstance(section, Section) else section
        found[_SECTION_OF[name]] = {**kept, name: values[name]}
    return found


def _in_section(variable: str) -> str:
    """rcg_workers -> rcg_worker__workers; other variables as they are."""
    name = variable.removeprefix("rcg_")
    return f"rcg_{_SECTION_OF[name]}__{name}" if name != variable and name in _SECTION_OF else variable


def variables() -> list[str]:
    """Every variable that is a setting."""
    flat = [*(name for name in Settings.model_fields if name not in SECTIONS), *_SECTION_OF]
    long = [f"{section}__{name}" for name, section in _SECTION_OF.items()]
    return [f"RCG_{name.upper()}" for name in (*flat, *long, *SECTIONS)]


def _profile() -> dict[str, Any]:
    """The file named by RCG_PROFILE. Raises: ConfigError when it does not exist."""
    profile = os.environ.get("RCG_PROFILE")
    if not profile:
        return {}
    if not Path(profile).is_file():
        raise ConfigError(
            "the profile file does not exist", got=profile, fix="set RCG_PROFILE to a YAML file or unset it"
        )
    return _read_yaml(Path(profile))


def _read_yaml(path: Path) -> dict[str, Any]:
    values = read_yaml(path, fix="mend the file or delete it") or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold settings by name", got=type(values).__name__, expected="key: value lines")
    if wrong := [name for name in SECTIONS if not isinstance(values.get(name, {}), dict)]:
        raise ConfigError(f"{wrong[0]} in {path} is no section", got=values[wrong[0]], expected="settings by name")
    return values


def load_settings() -> Settings:
    """Read and check the settings. Raises: ConfigError naming every wrong or unknown one."""
    known = variables()
    for name in sorted(os.environ):
        if name.startswith("RCG_") and name not in known and not name.startswith(_NOT_OURS):
            single = [variable for variable in known if variable.removeprefix("RCG_").lower() not in SECTIONS]
            close = difflib.get_close_matches(name, single, n=1)
            fix = f"did you mean {close[0]}?" if close else "unset it; see docs/reference/settings.md"
            raise ConfigError("unknown setting in the environment", got=name, fix=fix)
    try:
        return Settings()
    except SettingsError as error:
        raise ConfigError("a setting is no JSON", got=error, fix='e.g. {"name": "value"}') from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ConfigError("settings are wrong", got="; ".join(wrong), fix="see docs/reference/settings.md") from error


def checked_source(source: str) -> str:
    """The source with the full path of a folder or archive. Raises: ConfigError for one that does not exist."""
    if source in PACKAGED or "://" in source:
        return source
    path = Path(source).expanduser().resolve()
    if not path.is_dir() and not (path.is_file() and is_archive(path.name)):
        raise ConfigError(
            "the source is neither a folder nor an archive",
            got=source,
            expected=f"a folder of pictures, a file {', '.join(sorted(ARCHIVE_SUFFIXES))}, or {' | '.join(PACKAGED)}",
        )
    return str(path)


def remember_source(root: Path, source: str) -> None:
    """Keep the source of a checkout in its .rcg/local.yaml."""
    file = root / LOCAL_FILE
    values = _read_yaml(file) if file.exists() else {}
    write_whole(file, yaml.safe_dump(values | {"source": source}, sort_keys=True))
