"""One journal per store, opened once and closed once; one retraining at a time."""

from pathlib import Path

import pytest

from components.errors import ArtifactError, ConflictError
from components.store import open_store
from flows.identity.artifact import canonical_json
from flows.retrain.journal import Journal, Journals, new_journal
from flows.retrain.lock import StoreLock


def _journal(key: str, **changes: object) -> Journal:
    fields = {"key": key * 64, "base": "b" * 40, "target": "main", "n_new": 3, "chunks": ["c00001"], "why": []}
    return new_journal(**(fields | {"who": "me", "time_ms": 1} | changes))


def test_a_journal_is_opened_closed_and_followed_by_the_next(tmp_path: Path) -> None:
    journals = Journals(open_store(tmp_path))
    assert journals.read() == (None, None)
    first = _journal("a")
    journals.open(first, {"params.yaml": b"x"})
    assert journals.read()[0] == first
    assert journals.file(first, "params.yaml") == b"x"
    for _ in range(2):
        journals.close(first, "refused", "why")
        closed = journals.read()[0]
        assert closed is not None
        assert (closed.end, closed.told) == ("refused", "why")
    journals.close(first, "promoted", "another end")
    assert journals.read()[0] == closed, "an end is final"
    journals.open(_journal("b"), {})
    journals.close(first, "promoted", "late")
    now = journals.read()[0]
    assert now is not None
    assert (now.key, now.end, now.branch) == ("b" * 64, None, "retrain/bbbbbbbbbb")


def test_the_second_is_told_who_retrains(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with StoreLock(store).held() as check:
        check()
        with pytest.raises(ConflictError, match=r"under way[\s\S]*pid"), StoreLock(store).held():
            pass
    with StoreLock(store).held():
        pass


@pytest.mark.parametrize("change", [{"key": "../../x"}, {"key": "a" * 63}, {"base": "--upload-pack=x"}])
def test_a_journal_of_others_names_no_folder_and_no_option(tmp_path: Path, change: dict[str, str]) -> None:
    store = open_store(tmp_path)
    fields = _journal("a").model_dump(mode="json") | change
    store.put("retrain/current.json", canonical_json(fields))
    with pytest.raises(ArtifactError, match="not as it was written"):
        Journals(store).read()
