"""`rcg verify`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.terminal import say, say_lines


def command(
    picture: Annotated[
        Path, typer.Argument(help="A PNG that `rcg sample`, `edit` or `upscale` or the sample stage wrote.")
    ],
    model: Annotated[
        str | None, typer.Option(help="Bundle folder or registry reference; found by digest when left out.")
    ] = None,
    like: Annotated[Path | None, typer.Option(help="The picture that it is a variation of.")] = None,
    between: Annotated[tuple[Path, Path] | None, typer.Option(help="The two pictures that it lies between.")] = None,
    image: Annotated[Path | None, typer.Option(help="The picture that it is an edit of, or larger than.")] = None,
    mask: Annotated[Path | None, typer.Option(help="The mask of that edit.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Draw a picture again from its bundle and compare: identical, matches, differs or not decidable."""
    from flows.execution.project import Project
    from flows.lineage.verification import VerifyRequest, verify

    given = between or ((like,) if like is not None else ())
    if image is None and mask is not None:
        raise typer.BadParameter("--mask goes with --image")
    made_of = tuple(path for path in (image, mask) if path is not None)
    finding = verify(VerifyRequest(picture, model, given, made_of), Project.here())
    if as_json:
        say(json.dumps(asdict(finding), indent=2, sort_keys=True))
    else:
        decibels = "" if finding.psnr_db is None else f" (PSNR {finding.psnr_db:.1f} dB)"
        say_lines([f"{finding.verdict}{decibels}: {finding.why}"])
    raise typer.Exit(finding.exit_code)
