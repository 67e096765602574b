"""`rcg evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.terminal import counted, say, say_lines


def command(  # noqa: PLR0913, PLR0917  (one parameter per option)
    samples: Annotated[
        list[str],
        typer.Option(help="Pictures to judge: a folder, an .npz, `sample` or a bundle; may be repeated."),
    ],
    reference: Annotated[
        str, typer.Option(help="Real pictures: a folder, or ADM's .npz (arr_0, or mu and sigma, or both).")
    ],
    network: Annotated[
        str | None, typer.Option(help="trained | inception | timm | dinov2 | clip; without: that of params.yaml.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="The network's file; nothing is fetched.")] = None,
    model: Annotated[str | None, typer.Option(help="With --network timm: the model's name.")] = None,
    network_px: Annotated[
        int | None, typer.Option(help="With --network timm: side at which it sees pictures.", min=16)
    ] = None,
    n: Annotated[int | None, typer.Option("-n", help="The first n of each set; a bundle samples n.", min=2)] = None,
    px: Annotated[
        int | None, typer.Option(help="Take the center square of pictures in folders, at this side.", min=1)
    ] = None,
    k: Annotated[int, typer.Option(help="Neighbors of precision, recall, density and coverage.", min=1)] = 3,
    bootstrap: Annotated[
        int, typer.Option(help="Resamples behind the Frechet distance's interval; 0: none.", min=0)
    ] = 20,
    seed: Annotated[int, typer.Option(help="Of directions, subsets and resampling.", min=0)] = 0,
    beside: Annotated[
        list[Path] | None, typer.Option(help="Also the rows of an earlier --json file, if its protocol is the same.")
    ] = None,
    allow_same: Annotated[
        bool,
        typer.Option("--allow-same", help="Judge by the encoder that conditioned the pictures, which flatters them."),
    ] = False,
    controls: Annotated[
        bool, typer.Option(help="Also judge the judge, by real pictures that are spoiled on purpose.")
    ] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
    page_file: Annotated[Path | None, typer.Option("--page", help="Also write a page with pictures.")] = None,
) -> None:
    """Judge pictures against real ones by a network's features: FID, sFID, IS, precision, recall, KID, MIND."""
    from components.files import write_whole
    from flows.evaluation.networks import Choice
    from flows.evaluation.page import page, table
    from flows.evaluation.rows import as_json
    from flows.evaluation.run import Asked, judge
    from flows.execution.project import Project

    choice = Choice(network, weights, model, network_px)
    asked = Asked(samples, reference, choice, n, px, seed, k, bootstrap, beside or (), allow_same, controls)
    judged = judge(asked, Project.here(), counted)
    say_lines(table(judged))
    if json_file is not None:
        write_whole(json_file, as_json(judged))
        say(f"numbers in {json_file}")
    if page_file is not None:
        write_whole(page_file, page(judged))
        say(f"page in {page_file}")
