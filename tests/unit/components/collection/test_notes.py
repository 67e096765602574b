"""Notes as columns say what a dict of them would."""

import numpy as np
import pytest

from components.collection import notes
from components.collection.notes import Note, Notes, NotJoinedError


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "_BATCH", 7)


def _row(i: int) -> tuple[str, Note]:
    label, group = ("cat", None, "dög")[i % 3], (None, "g")[i % 2]
    return f"{i % 4}/é {i}.png", Note(label, tuple(f"caption {n} of {i}" for n in range(i % 4)), group)


def test_they_are_what_a_dict_of_them_is() -> None:
    rows = [_row(int(i)) for i in np.random.default_rng(0).permutation(50)]
    made, oracle = Notes(rows), dict(rows)
    assert (list(made), len(made), made) == (list(oracle), 50, oracle)
    for key, note in rows[::3]:
        assert made[key] == made.pop(key, None) == oracle.pop(key) == note
        assert made.pop(key, None) is None
        assert key not in made
    assert (list(made), dict(made.items())) == (list(oracle), oracle)
    assert made.get("no such picture") is None
    assert len(Notes([])) == 0


def test_rows_of_one_picture_are_joined_in_their_order() -> None:
    rows = [_row(i) for i in range(20)]
    rows[3:3] = [("a", Note("cat", ("one",), "g"))]
    rows += [("a", Note(None, ("two", "three"))), ("a", Note("cat", ("four",)))]
    made = Notes(rows)
    assert made["a"] == Note("cat", ("one", "two", "three", "four"), "g")
    assert (len(made), list(made)[3]) == (21, "a")
    made.pop("a", None)
    assert (len(made), "a" in made) == (20, False)


@pytest.mark.parametrize("wrong", [Note("dog", ("x",)), Note(None, ("x",), "h"), Note("cat", ())])
def test_the_first_row_that_does_not_fit_is_named(wrong: Note) -> None:
    rows = [_row(i) for i in range(30)]
    rows[25:25], rows[20:20], rows[10:10] = [("a", wrong)], [("b", wrong)], [("a", Note("cat", ("one",), "g"))]
    rows[2:2] = [("b", Note("cat", (), "g"))]
    with pytest.raises(NotJoinedError) as caught:
        Notes(rows)
    assert rows[caught.value.row] == (caught.value.key, wrong)
    assert (caught.value.row, caught.value.key) == (22, "b")
