"""Checkpoints in a store: digest first, then the pointer, by conditional writes; loading survives a torn one."""

import contextlib
import hashlib
import logging
import pickle
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.config import Config
from components.errors import ConflictError, MissingError, SupersededError, TamperedError
from components.store.base import Store
from components.store.cell import Cell
from components.training.worker import State

log = logging.getLogger(__name__)

_POINTER_TRIES = 5


class Saved(Config):
    """One durable checkpoint."""

    step: int
    key: str
    sha256: str
    attempt: int


class Latest(Config):
    """checkpoints/latest.json: what can be resumed from, newest first."""

    kept: tuple[Saved, ...]


class NoCheckpoints:
    """For short auxiliary trainings inside a stage (a probe, a feature network), which are simply done again."""

    def load_latest(self) -> tuple[int, State] | None:
        return None

    def save(self, step: int, state: State, *, wait: bool = False) -> None:
        """Keeps nothing."""

    def flush(self) -> None:
        """Nothing is under way."""


class CheckpointDir:
    """The checkpoints of one fingerprint, written by attempt number `attempt`; the newest `keep` stay.

    A newer attempt continues from an older one's checkpoint. Raises: SupersededError on saving after a newer attempt
    has saved; an upload's error surfaces at the next save.
    """

    def __init__(self, store: Store, prefix: str, attempt: int, keep: int, scratch: Path) -> None:
        self._store, self._attempt, self._keep, self._scratch = store, attempt, keep, scratch
        self._root = f"{prefix.rstrip('/')}/checkpoints"
        self._cell = Cell(store, f"{self._root}/latest.json")
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._upload: Future[None] | None = None

    def load_latest(self) -> tuple[int, State] | None:
        latest, _ = self._pointer()
        for saved in latest.kept:
            try:
                return saved.step, self._load(saved)
            except (MissingError, TamperedError) as error:
                log.warning("checkpoint of step %d is skipped: %s", saved.step, error.what)
        return None

    def save(self, step: int, state: State, *, wait: bool = False) -> None:
        self.flush()
        self._upload = self._pool.submit(self._write, step, snapshot(state))
        if wait:
            self.flush()

    def flush(self) -> None:
        if self._upload is not None:
            self._upload.result()

    def _write(self, step: int, state: State) -> None:
        key = f"{self._root}/{self._attempt}/step-{step:08d}.pt"
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            path = Path(folder) / "checkpoint.pt"
            torch.save(state, path)
            saved = Saved(step=step, key=key, sha256=_sha256(path), attempt=self._attempt)
            self._store.upload(key, path)
        for old in self._publish(saved):
            self._store.delete(old.key)

    def _publish(self, saved: Saved) -> tuple[Saved, ...]:
        """Point latest.json at saved; returns what fell off its end."""
        for _ in range(_POINTER_TRIES):
            latest, etag = self._pointer()
            newest = max((s.attempt for s in latest.kept), default=0)
            if newest > self._attempt:
                raise SupersededError(f"attempt {newest} has taken over from attempt {self._attempt}")
            kept = (saved, *(s for s in latest.kept if s.step < saved.step))
            with contextlib.suppress(ConflictError):
                self._cell.replace(Latest(kept=kept[: self._keep]).model_dump_json().encode(), etag)
                return kept[self._keep :]
        raise ConflictError(f"{self._cell.key} changed at each of {_POINTER_TRIES} tries to write it")

    def _pointer(self) -> tuple[Latest, str | None]:
        """latest.json and its etag."""
        found = self._cell.read()
        if found is None:
            return Latest(kept=()), None
        try:
            return Latest.model_validate_json(found[0]), found[1]
        except ValueError:
            log.warning("%s is unreadable; starting without a checkpoint", self._cell.key)
            return Latest(kept=()), found[1]

    def _load(self, saved: Saved) -> State:
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            path = Path(folder) / "checkpoint.pt"
            self._store.download(saved.key, path)
            if (found := _sha256(path)) != saved.sha256:
                raise TamperedError(f"{saved.key} is torn or altered", got=found, expected=saved.sha256)
            try:
                state: State = torch.load(path, map_location="cpu", weights_only=True)
            except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
                raise TamperedError(f"{saved.key} cannot be read", got=error) from error
            return state


def snapshot(value: Any) -> Any:
    """A copy on the CPU that later training steps cannot change."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(item) for item in value)
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
