"""A small graph, parents above children; boxes are links to what the page says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from components.pages.svg import Drawing, tag, text

_BOX_W, _BOX_H, _GAP_X, _GAP_Y, _EDGE = 148, 50, 20, 38, 2


@dataclass(frozen=True)
class Node:
    """One box: its name, a second line, and the names of its parents."""

    name: str
    text: str
    parents: tuple[str, ...] = ()
    faded: bool = False
    """Of what is only known by name."""


def direct_parents(parents: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The edges that no longer path implies: enough to see what follows from what. Unknown parents are left out."""
    above = {name: _ancestors(name, parents) for name in parents}
    return {
        name: [p for p in its if p in parents and not any(p in above[q] for q in its if q != p and q in parents)]
        for name, its in parents.items()
    }


def _ancestors(name: str, parents: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [p for p in parents[name] if p in parents]
    while waiting:
        parent = waiting.pop()
        if parent not in found:
            found.add(parent)
            waiting += [p for p in parents[parent] if p in parents]
    return found


def layers(parents: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Each name one layer below the lowest of its parents."""
    depth: dict[str, int] = {}

    def place(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((place(p) for p in parents[name] if p in parents), default=-1)
        return depth[name]

    for name in parents:
        place(name)
    return [[name for name in parents if depth[name] == level] for level in range(max(depth.values(), default=-1) + 1)]


def graph(nodes: Sequence[Node], *, title: str) -> Drawing:
    """The picture. Equal nodes give equal text."""
    edges = direct_parents({node.name: node.parents for node in nodes})
    rows = layers(edges)
    widest = max((len(row) for row in rows), default=1)
    width = widest * (_BOX_W + _GAP_X) - _GAP_X + 2 * _EDGE
    height = len(rows) * (_BOX_H + _GAP_Y) - _GAP_Y + 2 * _EDGE
    corner = {}
    for level, row in enumerate(rows):
        left = (width - (len(row) * (_BOX_W + _GAP_X) - _GAP_X)) / 2
        for i, name in enumerate(row):
            corner[name] = (left + i * (_BOX_W + _GAP_X), _EDGE + level * (_BOX_H + _GAP_Y))
    lines = [_line(corner[parent], corner[name]) for name, its in edges.items() for parent in its]
    boxes = [_box(node, *corner[node.name]) for node in nodes]
    return Drawing(title, [*lines, *boxes], width, height, css="graph", role="group")


def _line(parent: tuple[float, float], child: tuple[float, float]) -> Markup:
    x1, y1 = parent[0] + _BOX_W / 2, parent[1] + _BOX_H
    x2, y2 = child[0] + _BOX_W / 2, child[1]
    middle = (y1 + y2) / 2
    return tag("path", class_="edge", d=f"M{x1:g} {y1:g}C{x1:g} {middle:g} {x2:g} {middle:g} {x2:g} {y2:g}")


def _box(node: Node, x: float, y: float) -> Markup:
    center = x + _BOX_W / 2
    return tag(
        "a",
        tag("rect", x=x, y=y, width=_BOX_W, height=_BOX_H, rx=8),
        tag("g", text(center, y + 21, node.name), class_="name"),
        tag("g", text(center, y + 38, node.text), class_="digest"),
        href=f"#{node.name}",
        class_="node faded" if node.faded else "node",
    )
