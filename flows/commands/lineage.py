"""`rcg lineage`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.terminal import say, say_lines

if TYPE_CHECKING:
    from flows.lineage.trace import Lineage
    from flows.runs.ancestry import Facts

_WIDTH = 100


def command(
    reference: Annotated[
        str,
        typer.Argument(help="A picture, samples.json, manifest.json, a stage, a bundle folder or models:/name@alias."),
    ] = "artifacts/bundle",
    model: Annotated[str | None, typer.Option(help="The bundle that drew a picture, if it is not found.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page with the graph.")] = None,
) -> None:
    """Say what a picture, model or artifact was made of: data, params, code, versions."""
    from flows.execution.project import Project
    from flows.lineage.trace import lineage_of

    found = lineage_of(reference, Project.here(), model)
    if html is not None:
        from flows.pages.lineage import write_html

        write_html(found, html)
        say(f"lineage of {found.subject} in {html}")
    elif as_json:
        say(json.dumps(_as_json(found), indent=2, sort_keys=True))
    else:
        say_lines(lineage_lines(found))


def lineage_lines(found: "Lineage") -> list[str]:
    """The answer as an outline, most asked for first."""
    lines = [found.subject]
    if found.picture is not None:
        lines += ["", "picture", *_outline({k: v for k, v in found.picture.items() if k != "parents"}, "  ")]
    if found.collection:
        chunks = found.collection["chunks"]
        count = sum(chunk["count"] for chunk in chunks)
        lines += ["", f"collection  {count:,} pictures in {len(chunks)} chunk(s)"]
    lines += [
        "",
        *_table([("stage", "content", "code", "git", "image", "made", "on"), *map(_row, found.stages.values())]),
    ]
    seeds = {name: facts.seeds for name, facts in found.stages.items() if facts.seeds}
    if seeds:
        shown = (f"{name} {', '.join(f'{k}={v}' for k, v in its.items())}" for name, its in seeds.items())
        lines += ["", "seeds", *(f"  {text}" for text in shown)]
    if found.erased:
        lines += ["", "erased since, of its collection", *(f"  {text}" for text in found.erased)]
    lines += list(_more(found))
    return lines


def _more(found: "Lineage") -> Iterator[str]:
    jobs = {n: f.context["rayjob"] for n, f in found.stages.items() if f.context and "rayjob" in f.context}
    if jobs:
        yield from ("", "RayJobs", *(f"  {name}: {job}" for name, job in jobs.items()))
    for versions, names in _environments(found.stages).items():
        text = ", ".join(f"{name} {version}" for name, version in json.loads(versions).items())
        yield from ("", f"environment of {', '.join(names)}", f"  {text}")
    for name, facts in found.stages.items():
        if facts.adopted_from is not None:
            yield from ("", f"{name} was adopted from run {facts.adopted_from[:10]}: {facts.adopted_because}")
    params = {name: facts.params for name, facts in found.stages.items() if facts.params}
    if params:
        yield from ("", "params", *_outline(params, "  "))
    if found.metrics:
        yield from ("", "metrics", *_outline(found.metrics, "  "))


def _environments(stages: "Mapping[str, Facts]") -> dict[str, list[str]]:
    """Library versions (as JSON) -> stages made with them."""
    found: dict[str, list[str]] = {}
    for name, facts in stages.items():
        if facts.versions:
            found.setdefault(json.dumps(facts.versions, sort_keys=True), []).append(name)
    return found


def _row(facts: "Facts") -> tuple[str, ...]:
    from flows.runs.ancestry import made_at

    context = facts.context or {}
    git = context.get("git_commit", "")[:10] + ("+" if context.get("git_dirty") == "true" else "")
    workers = f"{facts.world_size} x {facts.device}" if facts.world_size is not None else "not known here"
    image, code = context.get("image", "")[-20:], (facts.code or "")[:10]
    return facts.stage, facts.content[:10], code, git, image, made_at(facts), workers


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Aligned columns; those that hold nothing are left out."""
    kept = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in kept}
    return ["  ".join(row[i].ljust(widths[i]) for i in kept).rstrip() for row in rows]


def _outline(value: Mapping[str, Any], indent: str) -> list[str]:
    """Nested data, one line per leaf or short branch."""
    lines = []
    for key, item in value.items():
        text = f"{indent}{key}: {item if isinstance(item, str) else json.dumps(item)}"
        if isinstance(item, Mapping) and item and len(text) > _WIDTH:
            lines += [f"{indent}{key}", *_outline(item, indent + "  ")]
        else:
            lines.append(text)
    return lines


def _as_json(found: "Lineage") -> dict[str, Any]:
    stages = {
        name: facts.model_dump(mode="json", exclude_none=True) | {"seeds": facts.seeds}
        for name, facts in found.stages.items()
    }
    named = ("bundle", "picture", "collection", "configs", "metrics", "erased")
    others = {name: getattr(found, name) for name in named}
    return {"subject": found.subject, "stages": stages, **{k: v for k, v in others.items() if v}}
