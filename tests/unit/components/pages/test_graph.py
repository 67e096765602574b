"""The graph: every edge that is left out is implied, nothing is lost, and boxes do not overlap."""

import re

from hypothesis import given
from hypothesis import strategies as st

from components.pages.graph import Node, direct_parents, graph, layers
from flows.pipeline.table import KINDS

PARENTS = {name: [need.stage for need in stage.needs] for name, stage in KINDS.items()}


@st.composite
def some_graph(draw: st.DrawFn) -> dict[str, list[str]]:
    names = [f"n{i}" for i in range(draw(st.integers(1, 7)))]
    return {name: draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else [] for i, name in enumerate(names)}


def _above(name: str, parents: dict[str, list[str]]) -> set[str]:
    return {p for parent in parents[name] for p in {parent, *_above(parent, parents)}}


@given(some_graph())
def test_reduction_keeps_who_is_above_whom_and_no_edge_is_spare(parents: dict[str, list[str]]) -> None:
    reduced = direct_parents(parents)
    for name in parents:
        assert _above(name, reduced) == _above(name, parents)
        for parent in reduced[name]:
            without = reduced | {name: [p for p in reduced[name] if p != parent]}
            assert parent not in _above(name, without)


@given(some_graph())
def test_parents_are_in_higher_layers(parents: dict[str, list[str]]) -> None:
    rows = layers(parents)
    depth = {name: i for i, row in enumerate(rows) for name in row}
    assert depth.keys() == parents.keys()
    assert all(depth[p] < depth[name] for name, its in parents.items() for p in its)


def test_the_pipeline() -> None:
    assert layers(direct_parents(PARENTS)) == [
        ["collect"],
        ["encoder", "codec"],
        ["text"],
        ["encode", "upsampler"],
        ["rdm", "pixels", "guide"],
        ["sample"],
        ["evaluate"],
        ["bundle"],
    ]
    text = graph([Node(name, "0" * 10, tuple(its)) for name, its in PARENTS.items()], title="all").__html__()
    corners = [(float(x), float(y)) for x, y in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"', text)]
    assert len(set(corners)) == len(KINDS)
    for i, (x, y) in enumerate(corners):
        assert all(abs(x - u) >= 148 or abs(y - v) >= 50 for u, v in corners[i + 1 :])


def test_names_are_escaped_and_unknown_parents_left_out() -> None:
    text = graph([Node("<b>", "&", ("nobody",))], title='"quoted"').__html__()
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert "edge" not in text
