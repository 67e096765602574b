"""`rcg export-checkpoint`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.terminal import StageName, say


def command(
    stage: StageName,
    file: Annotated[Path, typer.Argument(help="Where to; .safetensors writes the bare tensors.")],
    kind: Annotated[str | None, typer.Option(help="The layout, where the stage's own is not meant.")] = None,
) -> None:
    """Write a stage's weights in the layout that the reference reads."""
    from flows.execution.checkpoints import export_weights
    from flows.execution.project import Project

    kind, tensors = export_weights(Project.here(), stage, file, kind)
    n_elements = sum(tensor.numel() for tensor in tensors.values())
    say(f"{file}: {kind}, {len(tensors)} tensors, {n_elements:,} elements")
