import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import ConflictError, RcgError, StoreError, SupersededError
from components.store.local import LocalStore
from components.training.checkpoint import CheckpointDir, share_of


def checkpoints(tmp_path: Path, *, attempt: int = 1, keep: int = 2, store: LocalStore | None = None) -> CheckpointDir:
    return CheckpointDir(store or LocalStore(tmp_path / "store"), "runs/rdm/f", attempt, keep, tmp_path)


def save(directory: CheckpointDir, step: int, value: float, *, wait: bool = True) -> None:
    directory.save(step, {"w": torch.full((3,), value), "step": torch.tensor(value)}, {"of": value}, wait=wait)


def saved_value(directory: CheckpointDir) -> tuple[int, float]:
    tensors = {"w": torch.zeros(3), "step": torch.zeros(())}
    told: list[Any] = []

    def room(step: int, rest: Any, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
        told.append((step, rest, dict(shapes)))
        return tensors

    step = directory.load_latest(room)
    value = tensors["w"][0].item()
    assert told == [(step, {"of": value}, {"w": (3,), "step": ()})]
    assert tensors["step"].item() == value
    assert step is not None
    return step, value


def no_room(*_given: object) -> dict[str, torch.Tensor]:
    raise AssertionError("there is nothing to load")


def files(tmp_path: Path) -> list[str]:
    return [info.key.split("checkpoints/")[1] for info in LocalStore(tmp_path / "store").list("runs/rdm/f/checkpoints")]


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert checkpoints(tmp_path).load_latest(no_room) is None


def test_the_newest_is_loaded_and_the_last_n_are_kept(tmp_path: Path) -> None:
    directory = checkpoints(tmp_path)
    for step in (1, 2, 3):
        save(directory, step, step)
    assert saved_value(directory) == (3, 3.0)
    names = ("00000.safetensors", "rest.json")
    assert files(tmp_path) == [*(f"1/step-0000000{step}/{name}" for step in (2, 3) for name in names), "latest.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_a_snapshot_is_of_now(tmp_path: Path) -> None:
    directory, moving, rest = checkpoints(tmp_path), {"w": torch.ones(3), "step": torch.ones(())}, {"of": 1.0}
    directory.save(1, moving, rest)
    moving["w"].fill_(9.0)
    rest["of"] = 9.0
    directory.flush()
    assert saved_value(directory) == (1, 1.0)


def test_any_dtype_and_layout_comes_back(tmp_path: Path) -> None:
    directory = checkpoints(tmp_path)
    tensors = {
        "a.half": torch.randn(2, 3).half(),
        "a.double": torch.tensor([1 / 3], dtype=torch.float64),
        "count": torch.tensor(2**40),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 4),
        "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "turned": torch.randn(3, 2).T,
    }
    directory.save(1, tensors, None, wait=True)
    found = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    assert directory.load_latest(lambda *_given: found) == 1
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    "room",
    [
        {"w": torch.zeros(3)},
        {"w": torch.zeros(4), "step": torch.zeros(())},
        {"w": torch.zeros(3), "step": torch.zeros(()), "b": torch.zeros(1)},
    ],
)
def test_tensors_of_another_model_are_refused(tmp_path: Path, room: dict[str, torch.Tensor]) -> None:
    directory = checkpoints(tmp_path)
    save(directory, 1, 1)
    with pytest.raises(RcgError, match="another model"):
        directory.load_latest(lambda *_given: room)


def test_ranks_save_shares_that_weigh_about_the_same() -> None:
    tensors = {f"t{i}": torch.empty(n, device="meta") for i, n in enumerate((5, 1, 100, 90, 4, 3))}
    shares = [share_of(tensors, rank, 2) for rank in range(2)]
    assert sorted(name for share in shares for name in share) == sorted(tensors)
    assert [sum(tensors[name].numel() for name in share) for share in shares] == [108, 95]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a file"])
def test_a_torn_checkpoint_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    directory = checkpoints(tmp_path)
    save(directory, 1, 1)
    save(directory, 2, 2)
    LocalStore(tmp_path / "store").put("runs/rdm/f/checkpoints/1/step-00000002/00000.safetensors", damage)
    with caplog.at_level(logging.WARNING):
        assert saved_value(directory) == (1, 1.0)
    assert "step 2 is skipped" in caplog.text


def test_a_missing_checkpoint_is_skipped_too(tmp_path: Path) -> None:
    directory = checkpoints(tmp_path)
    save(directory, 1, 1)
    save(directory, 2, 2)
    LocalStore(tmp_path / "store").delete("runs/rdm/f/checkpoints/1/step-00000002/00000.safetensors")
    assert saved_value(directory) == (1, 1.0)


def test_unreadable_pointer_starts_over_and_is_replaced(tmp_path: Path) -> None:
    LocalStore(tmp_path / "store").put("runs/rdm/f/checkpoints/latest.json", b"{")
    directory = checkpoints(tmp_path)
    assert directory.load_latest(no_room) is None
    save(directory, 1, 1)
    assert saved_value(directory) == (1, 1.0)


def test_a_newer_attempt_goes_on_and_the_older_one_is_stopped(tmp_path: Path) -> None:
    old, new = checkpoints(tmp_path, attempt=1), checkpoints(tmp_path, attempt=2)
    save(old, 5, 5)
    assert saved_value(new) == (5, 5.0)
    save(new, 6, 6)
    with pytest.raises(SupersededError, match="attempt 2"):
        save(old, 7, 7)
    assert saved_value(new) == (6, 6.0)
    folders = sorted({name.rpartition("/")[0] for name in files(tmp_path)} - {""})
    assert folders == ["1/step-00000005", "1/step-00000007", "2/step-00000006"]


def test_after_falling_back_the_steps_done_again_replace_the_torn_ones(tmp_path: Path) -> None:
    directory = checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        save(directory, step, step)
    save(directory, 2, 20)
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
    save(directory, 1, 1, wait=False)
    with pytest.raises(StoreError, match="full"):
        save(directory, 2, 2, wait=False)


def test_an_own_write_whose_answer_was_lost_counts(tmp_path: Path) -> None:
    store = FlakyStore(tmp_path / "store")
    store.lost_answers = 1
    directory = checkpoints(tmp_path, store=store)
    save(directory, 1, 1)
    assert saved_value(directory) == (1, 1.0)


def test_save_returns_before_the_upload_and_one_is_in_flight(tmp_path: Path) -> None:
    store = FlakyStore(tmp_path / "store")
    store.gate = threading.Event()
    directory = checkpoints(tmp_path, store=store)
    save(directory, 1, 1, wait=False)
    assert directory.load_latest(no_room) is None
    second = threading.Thread(target=save, args=(directory, 2, 2), kwargs={"wait": False})
    second.start()
    second.join(0.1)
    assert second.is_alive()  # it waits for the first upload
    store.gate.set()
    second.join(10)
    save(directory, 3, 3)
    assert saved_value(directory) == (3, 3.0)
