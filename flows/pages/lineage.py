"""The page of `rcg lineage --html`: the graph, and what is known of each artifact in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import ConfigError
from components.pages.graph import Node, graph
from components.pages.page import render
from components.pages.svg import Drawing
from flows.lineage.trace import Lineage
from flows.pipeline.table import KINDS
from flows.runs.ancestry import Facts, made_at, took

_TEMPLATE = Path(__file__).with_suffix(".html")


def write_html(found: Lineage, target: Path) -> None:
    """Write a lineage as one self-contained page. Raises: ConfigError for a folder."""
    if target.is_dir():
        raise ConfigError("the page needs a file name", got=target, fix=f"--html {target / 'lineage.html'}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(lineage_page(found))


def lineage_page(found: Lineage) -> str:
    """The document."""
    picture = found.picture
    shown = {k: v for k, v in (picture or {}).items() if k not in ("sampling", "platform", "schema_version")}
    platform = (picture or {}).get("platform") or {}
    return render(
        _TEMPLATE,
        title=found.subject,
        count=sum(chunk["count"] for chunk in found.collection.get("chunks", [])),
        picture={name: _plain(value) for name, value in shown.items()}
        | {f"platform {name}": str(value) for name, value in platform.items()},
        sampling=picture["sampling"] if picture is not None else None,
        graph=graph_of(found.stages, extra=("picture",) if picture is not None else ()),
        known=[describe(name, facts) for name, facts in found.stages.items()],
        erased=found.erased,
        metrics={name: f"{value:.6g}" for name, value in sorted(found.metrics.items())},
    )


def graph_of(stages: Mapping[str, Facts], *, extra: tuple[str, ...] = ()) -> Drawing:
    """What was made from what; `extra` hangs below the last artifact."""
    nodes = [
        Node(
            name,
            known.content[:10],
            tuple(need.stage for need in KINDS[name].needs) if name in KINDS else (),
            faded=known.fingerprint is None,
        )
        for name, known in stages.items()
    ]
    last = "bundle" if "bundle" in stages else next(reversed(list(stages)), "")
    return graph([*nodes, *(Node(name, "this file", (last,)) for name in extra)], title="What was made from what")


@dataclass(frozen=True)
class Described:
    """One artifact in words."""

    name: str
    content: str
    made: str
    rows: Mapping[str, str | None]
    params: Mapping[str, Any] | None
    is_known: bool
    """Of others only the name and the digest are known."""


def describe(name: str, known: Facts) -> Described:
    """What the page says of an artifact."""
    context = known.context or {}
    git = context.get("git_commit")
    dirty = " with uncommitted changes" if context.get("git_dirty") == "true" else ""
    made = made_at(known)
    rows = {
        "content": known.content,
        "fingerprint": known.fingerprint,
        "code": known.code,
        "git commit": f"{git}{dirty}" if git else None,
        "image": context.get("image"),
        "RayJob": context.get("rayjob"),
        "made": f"{made} UTC" if made else None,
        "took": took(known),
        "on": f"{known.world_size} × {known.device}, {known.host}" if known.world_size is not None else None,
        "seeds": ", ".join(f"{place} {seed}" for place, seed in known.seeds.items()),
        "made from": ", ".join(f"{parent} {digest[:10]}" for parent, digest in (known.inputs or {}).items()),
        "libraries": ", ".join(f"{library} {version}" for library, version in (known.versions or {}).items()),
        "adopted": f"from run {known.adopted_from[:10]}: {known.adopted_because}" if known.adopted_from else None,
    }
    return Described(name, known.content, made, rows, known.params, known.fingerprint is not None)


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
