import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import ConflictError, StoreError, SupersededError
from components.store.local import LocalStore
from components.training.checkpoint import CheckpointDir, snapshot


def checkpoints(tmp_path: Path, *, attempt: int = 1, keep: int = 2, store: LocalStore | None = None) -> CheckpointDir:
    return CheckpointDir(store or LocalStore(tmp_path / "store"), "runs/rdm/f", attempt, keep, tmp_path)


def state(value: float) -> dict[str, Any]:
    return {"model": {"w": torch.full((3,), value)}, "curve": [{"step": 1, "loss": value}], "betas": (0.9, 0.99)}


def saved_value(directory: CheckpointDir) -> tuple[int, float]:
    loaded = directory.load_latest()
    assert loaded is not None
    step, found = loaded
    assert isinstance(found["model"], dict)
    return step, found["model"]["w"][0].item()


def files(tmp_path: Path) -> list[str]:
    return [info.key.split("checkpoints/")[1] for info in LocalStore(tmp_path / "store").list("runs/rdm/f/checkpoints")]


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert checkpoints(tmp_path).load_latest() is None


def test_the_newest_is_loaded_and_the_last_n_are_kept(tmp_path: Path) -> None:
    directory = checkpoints(tmp_path)
    for step in (1, 2, 3):
        directory.save(step, state(step), wait=True)
    assert saved_value(directory) == (3, 3.0)
    assert files(tmp_path) == ["1/step-00000002.pt", "1/step-00000003.pt", "latest.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_a_snapshot_is_of_now(tmp_path: Path) -> None:
    directory, moving = checkpoints(tmp_path), state(1.0)
    directory.save(1, moving)
    moving["model"]["w"].fill_(9.0)
    directory.save(2, moving, wait=True)
    LocalStore(tmp_path / "store").put("runs/rdm/f/checkpoints/1/step-00000002.pt", b"torn")
    assert saved_value(directory) == (1, 1.0)


def test_snapshot_keeps_the_structure() -> None:
    nested: dict[str, Any] = {"a": [torch.ones(1), (1, "x")], "b": None}
    copied = snapshot(nested)
    assert copied == nested
    assert copied["a"][0] is not nested["a"][0]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a file"])
def test_a_torn_checkpoint_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    directory = checkpoints(tmp_path)
    directory.save(1, state(1), wait=True)
    directory.save(2, state(2), wait=True)
    LocalStore(tmp_path / "store").put("runs/rdm/f/checkpoints/1/step-00000002.pt", damage)
    with caplog.at_level(logging.WARNING):
        assert saved_value(directory) == (1, 1.0)
    assert "step 2 is skipped" in caplog.text


def test_a_missing_checkpoint_is_skipped_too(tmp_path: Path) -> None:
    directory = checkpoints(tmp_path)
    directory.save(1, state(1), wait=True)
    directory.save(2, state(2), wait=True)
    LocalStore(tmp_path / "store").delete("runs/rdm/f/checkpoints/1/step-00000002.pt")
    assert saved_value(directory) == (1, 1.0)


def test_unreadable_pointer_starts_over_and_is_replaced(tmp_path: Path) -> None:
    LocalStore(tmp_path / "store").put("runs/rdm/f/checkpoints/latest.json", b"{")
    directory = checkpoints(tmp_path)
    assert directory.load_latest() is None
    directory.save(1, state(1), wait=True)
    assert saved_value(directory) == (1, 1.0)


def test_a_newer_attempt_goes_on_and_the_older_one_is_stopped(tmp_path: Path) -> None:
    old, new = checkpoints(tmp_path, attempt=1), checkpoints(tmp_path, attempt=2)
    old.save(5, state(5), wait=True)
    assert saved_value(new) == (5, 5.0)
    new.save(6, state(6), wait=True)
    with pytest.raises(SupersededError, match="attempt 2"):
        old.save(7, state(7), wait=True)
    assert saved_value(new) == (6, 6.0)
    assert files(tmp_path) == ["1/step-00000005.pt", "1/step-00000007.pt", "2/step-00000006.pt", "latest.json"]


def test_after_falling_back_the_steps_done_again_replace_the_torn_ones(tmp_path: Path) -> None:
    directory = checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        directory.save(step, state(step), wait=True)
    directory.save(2, state(20), wait=True)
    assert saved_value(directory) == (2, 20.0)


class FlakyStore(LocalStore):
    """Fails or loses the answer of chosen writes."""

    broken = False
    lost_answers = 0
    gate: threading.Event | None = None

    def upload(self, key: str, path: Path) -> None:
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.broken:
            raise StoreError("the store is full")
        super().upload(key, path)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        etag = super().put(key, data, if_absent=if_absent, if_match=if_match)
        if self.lost_answers:
            self.lost_answers -= 1
            raise ConflictError("somebody was first")  # what a retried conditional write answers
        return etag


def test_an_upload_error_surfaces_at_the_next_save(tmp_path: Path) -> None:
    store = FlakyStore(tmp_path / "store")
    directory = checkpoints(tmp_path, store=store)
    store.broken = True
    directory.save(1, state(1))
    with pytest.raises(StoreError, match="full"):
        directory.save(2, state(2))


def test_an_own_write_whose_answer_was_lost_counts(tmp_path: Path) -> None:
    store = FlakyStore(tmp_path / "store")
    store.lost_answers = 1
    directory = checkpoints(tmp_path, store=store)
    directory.save(1, state(1), wait=True)
    assert saved_value(directory) == (1, 1.0)


def test_save_returns_before_the_upload_and_one_is_in_flight(tmp_path: Path) -> None:
    store = FlakyStore(tmp_path / "store")
    store.gate = threading.Event()
    directory = checkpoints(tmp_path, store=store)
    directory.save(1, state(1))
    assert directory.load_latest() is None
    second = threading.Thread(target=directory.save, args=(2, state(2)))
    second.start()
    second.join(0.1)
    assert second.is_alive()  # it waits for the first upload
    store.gate.set()
    second.join(10)
    directory.save(3, state(3), wait=True)
    assert saved_value(directory) == (3, 3.0)
