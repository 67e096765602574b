"""The page of `rcg lineage --html`: the graph, and what is known of each artifact in it."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

from components.errors import ConfigError
from flows.lineage.trace import Lineage
from flows.pages.graph import Node, graph
from flows.pages.markup import facts, page, pre
from flows.pipeline.table import KINDS
from flows.runs.ancestry import Facts, made_at, took


def write_html(found: Lineage, target: Path) -> None:
    """Write a lineage as one self-contained page. Raises: ConfigError for a folder."""
    if target.is_dir():
        raise ConfigError("the page needs a file name", got=target, fix=f"--html {target / 'lineage.html'}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(lineage_page(found))


def lineage_page(found: Lineage) -> str:
    """The document."""
    count = sum(chunk["count"] for chunk in found.collection.get("chunks", []))
    lead = f"Made from {count:,} pictures." if count else "What it was made of, from the top down."
    picture = ""
    if found.picture is not None:
        shown = {k: v for k, v in found.picture.items() if k not in ("sampling", "platform", "schema_version")}
        rows = {name: _plain(value) for name, value in shown.items()} | {
            f"platform {name}": str(value) for name, value in (found.picture.get("platform") or {}).items()
        }
        picture = (
            f'<h2 id="picture">The picture</h2>{facts(rows, "What its file says")}{pre(found.picture["sampling"])}'
        )
    body = [
        f'<p class="eyebrow">Lineage</p><h1>{escape(found.subject)}</h1><p class="lead">{escape(lead)}</p>',
        picture,
        "<h2>Where it comes from</h2>",
        section(found.stages, extra=("picture",) if found.picture is not None else ()),
    ]
    if found.erased:
        items = "".join(f"<li>{escape(text)}</li>" for text in found.erased)
        body.append(f"<h2>Erased since</h2><p>Pictures of its collection:</p><ul>{items}</ul>")
    if found.metrics:
        rows = {name: f"{value:.6g}" for name, value in sorted(found.metrics.items())}
        body.append("<h2>How it was measured</h2>" + facts(rows, "Metrics of the evaluation"))
    return page(found.subject, body)


def section(stages: Mapping[str, Facts], *, extra: tuple[str, ...] = ()) -> str:
    """The graph beside what is known of each artifact."""
    nodes = [_node(name, known) for name, known in stages.items()]
    last = "bundle" if "bundle" in stages else next(reversed(list(stages)), "")
    nodes += [Node(name, "this file", (last,)) for name in extra]
    described = "".join(_details(name, known) for name, known in stages.items())
    return f'<div class="made"><div>{graph(nodes, title="What was made from what")}</div><div>{described}</div></div>'


def _node(name: str, known: Facts) -> Node:
    parents = tuple(need.stage for need in KINDS[name].needs) if name in KINDS else ()
    return Node(name, known.content[:10], parents, faded=known.fingerprint is None)


def _details(name: str, known: Facts) -> str:
    context = known.context or {}
    git = context.get("git_commit")
    dirty = " with uncommitted changes" if context.get("git_dirty") == "true" else ""
    rows = {
        "content": known.content,
        "fingerprint": known.fingerprint,
        "code": known.code,
        "git commit": f"{git}{dirty}" if git else None,
        "image": context.get("image"),
        "RayJob": context.get("rayjob"),
        "made": f"{made_at(known)} UTC" if made_at(known) else None,
        "took": took(known),
        "on": f"{known.world_size} × {known.device}, {known.host}" if known.world_size is not None else None,
        "seeds": ", ".join(f"{place} {seed}" for place, seed in known.seeds.items()),
        "made from": ", ".join(f"{parent} {digest[:10]}" for parent, digest in (known.inputs or {}).items()),
        "libraries": ", ".join(f"{library} {version}" for library, version in (known.versions or {}).items()),
        "adopted": f"from run {known.adopted_from[:10]}: {known.adopted_because}" if known.adopted_from else None,
    }
    about = "" if known.fingerprint is not None else "; nothing else is known of it here"
    summary = f'<b>{escape(name)}</b><span class="soft digest">{known.content[:10]}</span>'
    summary += f'<span class="soft">{escape(made_at(known))}</span>'
    params = pre(known.params) if known.params is not None else ""
    body = facts(rows, f"The {name} artifact{about}") + params
    return f'<details><summary>{summary}</summary><div id="{escape(name)}">{body}</div></details>'


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
