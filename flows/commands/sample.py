"""`rcg sample`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.sampling import BUNDLE, Count, Guidance, GuideScale, Large, Model, Out, RdmGuidance, Seed, Steps
from flows.commands.terminal import counted, finite, say


def command(  # noqa: PLR0913, PLR0917  (one parameter per option)
    model: Model = BUNDLE,
    out: Out = Path("samples"),
    n: Count = 16,
    seed: Seed = 0,
    like: Annotated[Path | None, typer.Option(help="Variations of this picture, through its representation.")] = None,
    between: Annotated[tuple[Path, Path] | None, typer.Option(help="Pictures between these two.")] = None,
    share: Annotated[
        float | None, typer.Option(help="So much of --between's second, or of --like.", min=0, max=1, callback=finite)
    ] = None,
    nearest: Annotated[
        int | None, typer.Option(help="Also nearest.png: so many nearest training pictures below each.", min=1)
    ] = None,
    npz: Annotated[
        Path | None, typer.Option(help="Also all pictures in one .npz file, as ADM's suite reads it.")
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to draw, for class-conditional models.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="What to draw, in words; of several each gets -n pictures.")
    ] = None,
    guidance: Guidance = None,
    guide_scale: GuideScale = None,
    rdm_guidance: RdmGuidance = None,
    steps: Steps = None,
    large: Large = False,
) -> None:
    """Draw pictures from a trained model: a grid and single PNGs."""
    from components.bundle.request import Request, Upscale
    from flows.execution.project import Project
    from flows.lineage.sampling import PROMPTS, SHOWN, open_picture, write_samples

    request = Request(
        n=n * max(1, len(text or ())),
        seed=seed,
        like=None if like is None else open_picture(like),
        between=None if between is None else (open_picture(between[0]), open_picture(between[1])),
        share=share,
        class_name=class_name,
        text=tuple(text or ()),
        guidance=guidance,
        guide_scale=guide_scale,
        rdm_guidance=rdm_guidance,
        steps=steps,
        upscale=Upscale() if large else None,
    )
    with counted("sample", request.n) as on_written:
        write_samples(request, Project.here(), model=model, out=out, nearest=nearest, npz=npz, on_written=on_written)
    which = "all of them" if request.n <= SHOWN else f"the first {SHOWN}"
    texts = f", with their texts in {out / PROMPTS}" if text else ""
    say(f"{request.n} picture(s) in {out}, {which} in {out / 'grid.png'}{texts}")
