"""Options that `rcg sample`, `rcg edit` and `rcg upscale` share."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.terminal import finite

BUNDLE = "artifacts/bundle"
Model = Annotated[str, typer.Option(help="Bundle folder or registry alias, e.g. models:/rcg@challenger.")]
Out = Annotated[Path, typer.Option(help="Folder for grid.png and the single pictures.")]
Count = Annotated[int, typer.Option("-n", help="Number of pictures.", min=1)]
Seed = Annotated[int, typer.Option(help="Equal seeds give equal pictures.")]
Guidance = Annotated[
    float | None, typer.Option(help="Strength of classifier-free guidance; 0 is off.", callback=finite)
]
GuideScale = Annotated[float | None, typer.Option(help="How strongly the guide pulls; 0 is off.", callback=finite)]
RdmGuidance = Annotated[
    float | None, typer.Option(help="The same of the representation generator, as for --text.", callback=finite)
]
Steps = Annotated[int | None, typer.Option(help="Steps of the pixel generator.", min=1)]
Large = Annotated[bool, typer.Option("--large", help="Make them larger with the bundle's upsampler.")]
