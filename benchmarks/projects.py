"""Artifacts of a project whose `rcg repro` is done, from wherever a benchmark is started."""

from contextlib import chdir
from pathlib import Path

from flows.execution.project import Project
from flows.pipeline.table import Need
from flows.runs.stored import StoredArtifact


def artifact(root: Path, stage: str, scratch: Path) -> StoredArtifact:
    """What a stage of it made. Raises: MissingError where it is not in the store."""
    with chdir(root):  # its settings and its store are those of its folder
        project = Project.here()
        return StoredArtifact(project.store, project.workspace.parent(project.store, Need(stage)), scratch / stage)
