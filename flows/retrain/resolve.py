"""The params of a retraining: what `retrain` says of bases and starts, resolved to chunks and digests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.collection.lock import Lock
from components.errors import ConfigError, MissingError
from flows.execution.project import Project
from flows.pipeline.policy import RetrainParams
from flows.registry import Version
from flows.retrain.drift import drift_of
from flows.runs.records import CommittedRun, find_run, read_json_file
from flows.runs.stored import StoredArtifact
from flows.yaml_files import parse_yaml

_WARM = ("rdm", "pixels")


@dataclass(frozen=True)
class Resolved:
    """The text of params.yaml, and why it is as it is."""

    text: str
    why: list[str]


def resolve_params(
    retrain: RetrainParams, text: str, lock: Lock, champion: Version | None, artifacts: "Artifacts"
) -> Resolved:
    """Comments and order of the file stay. Without a champion nothing is resolved: everything is fitted on all."""
    if champion is None:
        return Resolved(text, ["there is no champion yet: params as they are"])
    changes, why = dict[str, Any](), list[str]()
    base = _base(artifacts, champion)
    moved, reason = fits_anew(retrain, lock, base, champion, artifacts)
    changes["collect.base"] = [chunk.name for chunk in lock.chunks] if moved else base
    why.append(f"encoder and codec are {'fitted anew' if moved else 'kept'}: {reason}")
    sections = parse_yaml(text, "params.yaml")
    for stage in _WARM if retrain.init == "champion" else ():
        if sections.get(stage) is None:
            continue
        if f"rcg.content.{stage}" not in champion.tags:
            why.append(f"{stage} starts from random weights: version {champion.number} has none")
            continue
        run = artifacts.run(champion, stage)
        changes[f"{stage}.init"] = f"sha256:{run.digest}"
        why.append(f"{stage} starts from version {champion.number} ({run.digest[:10]})")
    return Resolved(set_values(text, changes), why)


class Artifacts:
    """The artifacts that a version was made of, by the digests in its tags."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def run(self, version: Version, stage: str) -> CommittedRun:
        """Raises: MissingError."""
        digest = version.tags.get(f"rcg.content.{stage}", "")
        run = find_run(self.project.store, stage, digest)
        if run is None:
            raise MissingError(
                f"the {stage} artifact of version {version.number} is not in the store",
                got=f"content {digest[:10]} in {self.project.store.uri}",
                fix="`rcg data copy --from` the store that has it",
            )
        return run

    def read_json(self, version: Version, stage: str, name: str) -> Any:
        return read_json_file(self.project.store, self.run(version, stage), name)

    def open(self, version: Version, stage: str, scratch: Path) -> StoredArtifact:
        return StoredArtifact(self.project.store, self.run(version, stage), scratch)


def _base(artifacts: Artifacts, champion: Version) -> list[str]:
    """Names of the chunks that the champion's encoder and codec were fitted on."""
    return [chunk["name"] for chunk in artifacts.read_json(champion, "collect", "base.json")["chunks"]]


def fits_anew(
    retrain: RetrainParams, lock: Lock, base: Sequence[str], champion: Version, artifacts: Artifacts
) -> tuple[bool, str]:
    """Whether encoder and codec are fitted anew, and why."""
    if retrain.refit == "never":
        return False, "retrain.refit is never"
    if retrain.refit == "every_n":
        since = sum(chunk.count for chunk in lock.chunks if chunk.name not in base)
        return since >= retrain.refit_images, f"{since} images since they were fitted, {retrain.refit_images} wanted"
    drift = drift_of(artifacts.project, lock, base, champion, artifacts.open)
    return drift > retrain.max_drift, f"drift {drift:.2f}, at most {retrain.max_drift:g} allowed"


def set_values(text: str, values: Mapping[str, Any]) -> str:
    """YAML with the values at these dotted keys replaced, and nothing else. Raises: ConfigError for an absent key."""
    for key, value in values.items():
        node = yaml.compose(text, yaml.SafeLoader)
        for part in key.split("."):
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            node = next((item for name, item in pairs if name.value == part), None)
        if node is None:
            raise ConfigError("params.yaml lacks a key that retraining sets", got=key, fix="add it; presets/ show it")
        new = yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("...\n").strip()
        start, end = node.start_mark.index, node.end_mark.index
        old = text[start:end]
        text = f"{text[:start]}{new}{old[len(old.rstrip()) :]}{text[end:]}"
    return text
