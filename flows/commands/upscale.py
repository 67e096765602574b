"""`rcg upscale`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.sampling import BUNDLE, Count, Model, Out, Seed
from flows.commands.terminal import counted, finite, say


def command(
    picture: Annotated[
        Path, typer.Argument(help="The picture; its center square is brought to the model's small size.")
    ],
    model: Model = BUNDLE,
    out: Out = Path("upscaled"),
    n: Count = 1,
    seed: Seed = 0,
    noise: Annotated[
        float | None,
        typer.Option(help="Noise that is added to the small picture first; more invents more.", callback=finite),
    ] = None,
) -> None:
    """Make a picture larger with the bundle's upsampler."""
    from components.bundle.request import Request, Upscale
    from flows.execution.project import Project
    from flows.lineage.sampling import open_picture, write_samples

    request = Request(n=n, seed=seed, upscale=Upscale(image=open_picture(picture), noise=noise))
    with counted("upscale", n) as on_written:
        write_samples(request, Project.here(), model=model, out=out, on_written=on_written)
    say(f"{n} picture(s) in {out}, side by side in {out / 'grid.png'}")
