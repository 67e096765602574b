"""`rcg register`."""

from flows.commands.terminal import say

_SHOWN = (
    ("pictures", "artifacts/sample/pictures/grid.png"),
    ("report", "artifacts/evaluate/report.html"),
    ("bundle", "artifacts/bundle"),
)


def command() -> None:
    """Register artifacts/bundle in MLflow as `challenger`; the same bundle is never registered twice."""
    from flows.execution.project import Project
    from flows.execution.registration import register_bundle

    project = Project.here()
    say(f"{'model':<10} {register_bundle(project)}")
    for label, path in _SHOWN:
        if (project.root / path).exists():
            say(f"{label:<10} {project.root / path}")
