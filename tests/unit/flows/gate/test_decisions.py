"""Decisions in a store: never overwritten, history by compare-and-swap, and where a rollback leads."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import ConflictError
from components.store import open_store
from flows.gate.decisions import Action, Contestant, Decision, Decisions, Entry, EntryState, History


def an_entry(
    number: int, version: int, before: int | None, action: Action = "promote", state: EntryState = "done"
) -> Entry:
    return Entry(
        number=number,
        action=action,
        version=version,
        digest=f"{version:064x}",
        before=before,
        decision=number,
        who="me",
        time_ms=number,
        state=state,
        why=None,
    )


def a_decision(number: int, version: int = 1, **changes: object) -> Decision:
    challenger = Contestant(version=version, digest="d", collection="c", metrics={"fd": 1.0})
    base = Decision(
        schema_version=1,
        number=number,
        model="rcg",
        verdict="promoted",
        question="q",
        challenger=challenger,
        champion=None,
        checks=[],
        differences={},
        thresholds={},
        protocol={},
        notes=[],
        who="me",
        time_ms=5,
    )
    return base.model_copy(update=changes)


@pytest.fixture
def decisions(tmp_path: Path) -> Decisions:
    return Decisions(open_store(tmp_path), "rcg")


def test_a_decision_is_written_once_and_read_back(decisions: Decisions) -> None:
    assert decisions.next_number() == 1
    decisions.add(a_decision(1))
    decisions.add(a_decision(1))  # the answer to the first write may have got lost
    with pytest.raises(ConflictError):
        decisions.add(a_decision(1, who="somebody else"))
    decisions.add(a_decision(2, version=2))
    assert [d.challenger.version for d in decisions.all()] == [1, 2]
    assert decisions.next_number() == 3


def test_history_changes_only_if_it_is_what_was_read(decisions: Decisions) -> None:
    history, etag = decisions.history()
    assert (history.entries, etag) == ([], None)
    decisions.replace([an_entry(1, 1, None)], None)
    with pytest.raises(ConflictError):
        decisions.replace([an_entry(1, 2, None)], None)
    _, etag = decisions.history()
    decisions.replace([an_entry(1, 1, None), an_entry(2, 2, 1)], etag)
    with pytest.raises(ConflictError):
        decisions.replace([], etag)
    assert decisions.history()[0].champions() == [1, 2]


def _champions(*entries: Entry) -> list[int]:
    return History(schema_version=1, entries=list(entries)).champions()


def test_a_rollback_takes_what_it_left_off_the_list() -> None:
    made = [an_entry(1, 1, None), an_entry(2, 2, 1), an_entry(3, 3, 2)]
    once = [*made, an_entry(4, 2, 3, "rollback")]
    assert _champions(*once) == [1, 2]
    twice = [*once, an_entry(5, 1, 2, "rollback")]
    assert _champions(*twice) == [1]
    assert _champions(*twice, an_entry(6, 4, 1)) == [1, 4]


def test_a_champion_made_by_hand_can_be_returned_to_and_void_entries_do_not_count() -> None:
    assert _champions(an_entry(1, 5, 3)) == [3, 5]
    assert _champions(an_entry(1, 1, None), an_entry(2, 2, 1, state="void")) == [1]
    assert _champions(an_entry(1, 1, None), an_entry(2, 9, 1, "rollback")) == [1, 9]


@given(st.lists(st.sampled_from(["new", "back"]), max_size=12))
def test_the_list_is_a_stack_for_any_order_of_promotions_and_rollbacks(steps: list[str]) -> None:
    stack: list[int] = []
    entries: list[Entry] = []
    for step in steps:
        before = stack[-1] if stack else None
        if step == "new":
            stack.append(len(entries) + 1)
            entries.append(an_entry(len(entries) + 1, stack[-1], before))
        elif len(stack) > 1:
            stack.pop()
            entries.append(an_entry(len(entries) + 1, stack[-1], before, "rollback"))
        assert _champions(*entries) == stack
