"""Finding the bundle that a picture names: beside it, in the store, or in the registry."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from components.bundle.integrity import bundle_digest
from components.bundle.provenance import Provenance
from components.documents import read_json, validated
from components.errors import ArtifactError, MissingError, RcgError
from flows.execution.project import Project
from flows.runs.ancestry import keep_context
from flows.runs.records import MANIFEST, CommittedRun, load_run, read_json_file

LINEAGE = "lineage.json"


def bundle_of(claim: Provenance, model: str | None, project: Project) -> Path:
    """A local folder with the bundle that the picture was sampled from, or the named one.

    Raises: MissingError, ArtifactError.
    """
    from flows.registry import resolve

    if model is not None:
        return resolve(model, project.tracking, project.models)
    beside = project.root / "artifacts" / "bundle"
    if (beside / LINEAGE).is_file() and _is_it(claim, read_lineage(beside), lambda: bundle_digest(beside)):
        return beside
    for run in bundles(project):
        lineage = read_json_file(project.store, run, LINEAGE)
        if _is_it(claim, lineage, lambda: run.digest):  # noqa: B023  (called at once)
            return bundle_folder(project, run)
    found = _registered(claim, project)
    if found is not None:
        return resolve(found, project.tracking, project.models)
    raise MissingError(
        "the bundle that drew this picture is not here",
        expected=claim.bundle or f"one made of {', '.join(f'{s} {d[:10]}' for s, d in claim.parents.items())}",
        fix="name it: --model FOLDER or --model models:/rcg/3",
    )


def _is_it(claim: Provenance, lineage: Mapping[str, Any], digest: Any) -> bool:
    if claim.bundle is not None:
        return bool(digest() == claim.bundle)
    parents = lineage["parents"]
    made = {stage: content for stage, content in claim.parents.items() if stage in parents}
    return bool(made) and all(parents[stage]["content"] == content for stage, content in made.items())


def bundles(project: Project) -> Iterator[CommittedRun]:
    """Every intact bundle in the store; damaged ones are passed over."""
    for info in project.store.list("runs/bundle"):
        prefix, _, name = info.key.rpartition("/")
        if name == MANIFEST and prefix.count("/") == 2:
            try:
                run = load_run(project.store, prefix)
            except ArtifactError:
                continue
            if run is not None and LINEAGE in run.keys:
                yield run


def bundle_folder(project: Project, run: CommittedRun) -> Path:
    """The bundle on this machine: in the store, or fetched once from a remote one."""
    local = project.store.local_path(run.keys[LINEAGE])
    if local is not None:
        keep_context(project.store, run)
        return local.parent
    from flows.runs.transfer import pull

    folder = project.models / run.digest
    pull(project.store, run, folder)
    return folder


def _registered(claim: Provenance, project: Project) -> str | None:
    """models:/name/version of the bundle, if the registry can be asked and has it."""
    if claim.bundle is None or project.tracking is None:
        return None
    from flows.tracking.client import mlflow_errors, open_client

    try:
        client = open_client(project.tracking.uri)
        with mlflow_errors(project.tracking.uri):
            found = client.search_model_versions(f"tags.`rcg.bundle_digest` = '{claim.bundle}'")
    except RcgError:
        return None
    return f"models:/{found[0].name}/{found[0].version}" if found else None


def read_lineage(folder: Path) -> dict[str, Any]:
    """lineage.json of a bundle folder. Raises: MissingError, ArtifactError."""
    path = folder / LINEAGE
    if not path.is_file():
        raise MissingError("no lineage here", got=folder, expected=f"a bundle folder with {LINEAGE}")
    lineage: dict[str, Any] = read_json(path, fix="copy or pull the bundle again")
    validated(_Lineage, lineage, str(path))
    return lineage


class _Known(BaseModel):
    """Base of what has to be so in a file that may say more."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _Parent(_Known):
    content: str
    metrics: dict[str, Any] = {}
    config: dict[str, Any] = {}


class _Chunk(_Known):
    name: str
    count: int = Field(ge=0)


class _Collection(_Known):
    chunks: list[_Chunk] = []
    classes: list[str] | None = None


class _Lineage(_Known):
    """What is read of lineage.json."""

    parents: dict[str, _Parent]
    collection: _Collection = _Collection()
    params: dict[str, Any] | None = None
