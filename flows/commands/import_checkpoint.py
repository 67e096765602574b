"""`rcg import-checkpoint`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.terminal import say_lines


def command(
    file: Annotated[Path, typer.Argument(help="A checkpoint in the reference's layout; for kl also its folder.")],
    kind: Annotated[str | None, typer.Option(help="Which model of the file; the generator when left out.")] = None,
    timm: Annotated[str | None, typer.Option(help="The file is of this timm model, which becomes the encoder.")] = None,
    stage: Annotated[str | None, typer.Option(help="Refuse a file that another stage imports.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the section into params.yaml.")] = False,
) -> None:
    """Recognize and check a checkpoint, and print the params that make `rcg run STAGE` import it."""
    from components.errors import ConfigError
    from flows.execution.checkpoints import PARAMS, import_section, timm_section, write_sections

    if timm is not None and kind is not None:
        raise ConfigError("--timm and --kind both say what the file is", fix="leave one of them out")
    found = import_section(file, kind=kind, stage=stage) if timm is None else timm_section(file, timm, stage=stage)
    others = [other for other in found.checkpoint.parts if other != found.checkpoint.kind]
    n_elements = sum(tensor.numel() for tensor in found.checkpoint.tensors.values())
    lines = [
        f"file      {found.path}",
        f"kind      {found.checkpoint.kind}, imported by stage {found.stage}",
        f"tensors   {len(found.checkpoint.tensors)}, {n_elements:,} elements",
        f"sha256    {found.checkpoint.sha256}",
        *([f"also      {', '.join(others)}: import them with --kind"] if others else []),
        *([f"note      {found.note}"] if found.note else []),
        "",
        *found.text.splitlines(),
        "",
    ]
    if write:
        changed, question = write_sections(found)
        lines.append(f"written to {PARAMS} ({', '.join(changed)}); now: rcg run {found.stage}")
        lines += ["", f"before that, {question}"] if question else []
    else:
        lines.append(f"put this into {PARAMS} (--write does), then: rcg run {found.stage}")
    say_lines(lines)
