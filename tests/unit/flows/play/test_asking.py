"""Fields of the page -> the request that the command line would make."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given as given_values
from hypothesis import settings
from hypothesis import strategies as st

from components.bundle.request import Edit, Picture, Request, Upscale
from components.errors import ConfigError, MissingError, RcgError
from flows.play.asking import MOST, asked, edit_of
from tests.support.mutations import NASTY


@pytest.fixture
def given(tmp_path: Path) -> dict[str, str]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    return {name: str(tmp_path / f"{name}.png") for name in ("a", "b")}


def _of(name: str) -> Picture:
    return Picture(name.encode(), f"{name}.png")


def test_what_is_empty_is_not_asked_for() -> None:
    empty = {"n": 3, "seed": 5, "class_name": "", "text": "  ", "like": None, "a": None, "b": None, "share": 0.5}
    assert asked(empty | {"guidance": None, "large": False}) == Request(n=3, seed=5)


def test_every_field_has_its_place(given: dict[str, str]) -> None:
    a, b = given["a"], given["b"]
    options = {"guidance": 0.0, "rdm_guidance": 1.5, "guide_scale": 2.0, "steps": 9}
    assert asked({"class_name": "cat", **options}) == Request(class_name="cat", **options)
    assert asked({"text": " a red apple "}) == Request(text=("a red apple",))
    assert asked({"like": a, "n": 2}) == Request(n=2, like=_of("a"))
    assert asked({"text": "x", "like": a, "share": 0.25}) == Request(text=("x",), like=_of("a"), share=0.25)
    assert asked({"a": a, "b": b, "share": 0.0}) == Request(between=(_of("a"), _of("b")), share=0.0)
    assert asked({"a": a, "b": b, "n": 4}) == Request(n=4, between=(_of("a"), _of("b")))
    assert asked({"large": True}) == Request(upscale=Upscale())
    assert asked({"image": a, "noise": 0.0}) == Request(upscale=Upscale(image=_of("a"), noise=0.0))
    edit = Edit(image=_of("a"), mask=_of("b"))
    assert asked({"text": "x"}, edit) == Request(text=("x",), edit=edit)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n": 0}, "number of pictures"),
        ({"n": MOST + 1}, r"rcg sample"),
        ({"n": 1.5}, "number of pictures"),
        ({"seed": -1}, "negative"),
        ({"seed": 0.5}, "whole number"),
    ],
)
def test_mistakes_are_named(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        asked(values)


def test_one_of_two_pictures_and_a_file_that_went(given: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"two pictures[\s\S]*the first alone"):
        asked({"a": given["a"], "share": 0.5})
    with pytest.raises(MissingError, match="no such picture"):
        asked({"like": str(tmp_path / "gone.png")})


@pytest.mark.parametrize(
    ("needs", "words"), [("text", "no text"), ("like", "to vary"), ("a", "between"), ("image", "larger")]
)
def test_what_a_tab_is_for_has_to_be_given(given: dict[str, str], needs: str, words: str) -> None:
    empty = {"n": 1, "text": " ", "like": None, "a": None, "image": None, "noise": 0.1}
    with pytest.raises(ConfigError, match=words):
        asked(empty, needs=needs)
    full = {
        "text": {"text": "x"},
        "like": {"like": given["a"]},
        "a": {"a": given["a"], "b": given["b"], "share": 0.5},
        "image": {"image": given["a"]},
    }[needs]
    assert asked(full, needs=needs) == asked(full)


FIELDS = (
    *("n", "seed", "class_name", "text", "like", "a", "b", "image", "share", "noise"),
    *("guidance", "rdm_guidance", "guide_scale", "steps", "large", "free", "repaint"),
)
VALUES = [*NASTY, 3, 0.5, True, "x", "/", ["x"]]


@settings(max_examples=150, derandomize=True, deadline=None)
@given_values(st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(VALUES)), st.sampled_from([None, "text", "a"]))
def test_values_of_any_type_are_named(values: dict[str, object], needs: str | None) -> None:
    """Whoever writes to the server by hand."""
    image = Picture(b"", "x.png")
    with contextlib.suppress(RcgError):
        request = asked(values, edit_of(values, image, image, None), needs=needs)
        assert request.condition is not None
        numbers = (request.guidance, request.rdm_guidance, request.guide_scale, request.steps)
        assert all(number is None or type(number) in (int, float) for number in numbers)
