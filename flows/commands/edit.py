"""`rcg edit`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.sampling import BUNDLE, Count, Guidance, GuideScale, Large, Model, Out, RdmGuidance, Seed, Steps
from flows.commands.terminal import counted, say


def command(  # noqa: PLR0913, PLR0917  (one parameter per option)
    picture: Annotated[Path, typer.Argument(help="The picture to edit; its center square is used.")],
    mask: Annotated[
        Path, typer.Option(help="What to fill: transparent parts, or else white ones. Any size, the picture's aspect.")
    ],
    model: Model = BUNDLE,
    out: Out = Path("edits"),
    n: Count = 4,
    seed: Seed = 0,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to fill in, for class-conditional models.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="What to fill in, in words, for models that read them.")] = None,
    like: Annotated[Path | None, typer.Option(help="Fill in what suits this picture's representation.")] = None,
    free: Annotated[
        bool, typer.Option("--free", help="Sample a representation; without it, it is that of the picture itself.")
    ] = False,
    repaint: Annotated[
        int | None, typer.Option(help="Take each diffusion step so many times, which ties the parts together.", min=1)
    ] = None,
    large: Large = False,
    guidance: Guidance = None,
    guide_scale: GuideScale = None,
    rdm_guidance: RdmGuidance = None,
    steps: Steps = None,
) -> None:
    """Fill a part of a picture anew; the rest of its pixels stays exactly as it is."""
    from components.bundle.request import Edit, Request, Upscale
    from flows.execution.project import Project
    from flows.lineage.sampling import open_picture, write_samples

    request = Request(
        n=n,
        seed=seed,
        class_name=class_name,
        text=() if text is None else (text,),
        like=None if like is None else open_picture(like),
        edit=Edit(image=open_picture(picture), mask=open_picture(mask), free=free, repaint=repaint),
        upscale=Upscale() if large else None,
        guidance=guidance,
        guide_scale=guide_scale,
        rdm_guidance=rdm_guidance,
        steps=steps,
    )
    with counted("edit", n) as on_written:
        write_samples(request, Project.here(), model=model, out=out, on_written=on_written)
    say(f"{n} picture(s) in {out}, side by side in {out / 'grid.png'}")
