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
    every = (found, *found.also)
    others = sorted(found.checkpoint.parts.keys() - {one.checkpoint.kind for one in every})
    lines = [f"file      {found.path}", f"sha256    {found.checkpoint.sha256}"]
    for one in every:
        n_elements = sum(tensor.numel() for tensor in one.checkpoint.tensors.values())
        lines += [
            f"kind      {one.checkpoint.kind}, imported by stage {one.stage}",
            f"tensors   {len(one.checkpoint.tensors)}, {n_elements:,} elements",
            *([f"note      {one.note}"] if one.note else []),
        ]
    lines += [
        *([f"also      {', '.join(others)}: import them with --kind"] if others else []),
        "",
        *found.text.splitlines(),
        "",
    ]
    runs = ", ".join(f"rcg run {one.stage}" for one in every)
    if write:
        changed, question = write_sections(found)
        lines.append(f"written to {PARAMS} ({', '.join(changed)}); now: {runs}")
        lines += ["", *f"before that, {question}".splitlines()] if question else []
    else:
        lines.append(f"put this into {PARAMS} (--write does), then: {runs}")
    say_lines(lines)
