"""`rcg play`."""

from typing import Annotated

import typer

from flows.commands.sampling import BUNDLE, Model
from flows.commands.terminal import say


def command(
    model: Model = BUNDLE,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 7860,
) -> None:
    """A page in the browser to sample, mix, edit and upscale with a trained model."""
    from flows.execution.project import Project
    from flows.executors.base import pick_device
    from flows.play.drawing import Artist
    from flows.play.server import serve
    from flows.registry import resolve

    project = Project.here()
    folder = resolve(model, project.tracking, project.models)
    from components.bundle.bundle import Bundle

    bundle = Bundle.load(folder, device=pick_device(project.settings.worker.device).type)
    serve(Artist(bundle), host=host, port=port, on_ready=lambda address: say(f"{address}   (Ctrl-C ends it)"))
