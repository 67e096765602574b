"""Checkpoints in a store: digests first, then the pointer, by conditional writes; loading survives a torn one.

Tensors are written and read by torch.distributed.checkpoint, as safetensors with the places of the parts in the header:
no pickle is ever read from the store, and any number of ranks reads what any other wrote. Only its planners and storage
classes are used: save() and load() bring collectives, and uploads go on beside those of the training.
"""

import contextlib
import copy
import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from components.config import Config
from components.errors import ConflictError, MissingError, RcgError, RetryableError, SupersededError, TamperedError
from components.files import file_sha256
from components.store.base import Store
from components.store.cell import Cell
from components.training.worker import Room, Worker

log = logging.getLogger(__name__)

REST = "rest.json"
_POINTER_TRIES = 5
_UPLOADS_END = timedelta(days=7)


class SavedFile(Config):
    """One object of a checkpoint."""

    key: str
    sha256: str

    @property
    def name(self) -> str:
        return self.key.rsplit("/", 1)[-1]


class Saved(Config):
    """One durable checkpoint: tensors of each rank, and rest.json."""

    step: int
    attempt: int
    files: tuple[SavedFile, ...]


class Latest(Config):
    """checkpoints/latest.json: what can be resumed from, newest first."""

    kept: tuple[Saved, ...]


class NoCheckpoints:
    """For short auxiliary trainings inside a stage (a probe, a feature network), which are simply done again."""

    def load_latest(self, room: Room) -> int | None:  # noqa: ARG002
        return None

    def save(self, step: int, tensors: Mapping[str, Tensor], rest: Any, *, wait: bool = False) -> None:
        """Keeps nothing."""

    def flush(self) -> None:
        """Nothing is under way."""

    def alone(self) -> "NoCheckpoints":
        return self


def lone_worker(device: torch.device, scratch: Path, *, threads: int = 1, fit_threads: bool = False) -> Worker:
    """A rank without others for such a training: nothing of it is kept, and nobody hears what it reports."""
    return Worker(
        rank=0,
        world_size=1,
        device=device,
        checkpoints=NoCheckpoints(),
        report=lambda _: None,
        scratch=scratch,
        checkpoint_every=2**62,
        threads=threads,
        fit_threads=fit_threads,
    )


class CheckpointDir:
    """The checkpoints of one fingerprint, written by attempt number `attempt`; the newest `keep` stay.

    Every rank uploads its share of the tensors; rank 0 points to what all of them have written. A newer attempt
    continues from an older one's checkpoint. `before_save` writes what a resumed training does not tell again. Raises:
    SupersededError on saving after a newer attempt has saved; an upload's error surfaces at the next save.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        attempt: int,
        keep: int,
        scratch: Path,
        *,
        rank: int = 0,
        world_size: int = 1,
        before_save: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._attempt, self._keep, self._scratch = store, attempt, keep, scratch
        self._rank, self._world_size, self._before_save = rank, world_size, before_save
        self._root = f"{prefix.rstrip('/')}/checkpoints"
        self._cell = Cell(store, f"{self._root}/latest.json")
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._upload: Future[None] | None = None
        self._uploaders: Any = None

    def alone(self) -> "CheckpointDir":
        other = copy.copy(self)
        other._rank, other._world_size = 0, 1
        return other

    def load_latest(self, room: Room) -> int | None:
        for saved in self._pointer()[0].kept:
            with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
                try:
                    fetch(self._store, saved, Path(folder))
                except (MissingError, TamperedError) as error:
                    log.warning("checkpoint of step %d is skipped: %s", saved.step, error.what)
                    continue
                read_tensors(Path(folder), saved.step, room)
                return saved.step
        return None

    def save(self, step: int, tensors: Mapping[str, Tensor], rest: Any, *, wait: bool = False) -> None:
        self.flush()
        self._before_save()
        if self._world_size > 1 and self._uploaders is None:  # a group of its own, beside training's collectives
            self._uploaders = dist.new_group(backend="gloo", timeout=_UPLOADS_END)
        mine = {name: snapshot(tensors[name]) for name in share_of(tensors, self._rank, self._world_size)}
        self._upload = self._pool.submit(self._write, step, mine, json.dumps(rest))
        if wait:
            self.flush()

    def flush(self) -> None:
        if self._upload is not None:
            self._upload.result()

    def _write(self, step: int, mine: Mapping[str, Tensor], rest: str) -> None:
        error: Exception | None = None
        files: tuple[SavedFile, ...] = ()
        try:
            files = self._put(step, mine, rest)
        except Exception as raised:
            error = raised
        everyone = self._of_all(None if error is not None else files)
        if error is not None:
            raise error
        if None in everyone:
            raise RetryableError(
                f"rank {everyone.index(None)} has not saved its part of the checkpoint of step {step}",
                fix="run the same command again",
            )
        if self._rank == 0:
            together = tuple(file for part in everyone for file in part or ())
            for old in self._publish(Saved(step=step, attempt=self._attempt, files=together)):
                for file in old.files:
                    self._store.delete(file.key)

    def _put(self, step: int, mine: Mapping[str, Tensor], rest: str) -> tuple[SavedFile, ...]:
        """Upload this rank's files; rank 0 has the rest, too."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            paths = [write_tensors(mine, Path(folder) / f"{self._rank:05d}.safetensors")] if mine else []
            if self._rank == 0:
                paths.append(Path(folder) / REST)
                paths[-1].write_text(rest)
            files = [
                SavedFile(key=f"{self._root}/{self._attempt}/step-{step:08d}/{path.name}", sha256=file_sha256(path))
                for path in paths
            ]
            for file, path in zip(files, paths, strict=True):
                self._store.upload(file.key, path)
        return tuple(files)

    def _of_all(self, files: tuple[SavedFile, ...] | None) -> list[tuple[SavedFile, ...] | None]:
        """What each rank has uploaded, on every rank; None of one that failed."""
        if self._uploaders is None:
            return [files]
        everyone: list[Any] = [None] * self._world_size
        dist.all_gather_object(everyone, files, group=self._uploaders)
        return everyone

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


def fetch(store: Store, saved: Saved, folder: Path) -> list[Path]:
    """Download a checkpoint's files. Raises: MissingError; TamperedError for one of another digest."""
    paths = [folder / file.name for file in saved.files]
    for file, path in zip(saved.files, paths, strict=True):
        store.download(file.key, path)
        if (found := file_sha256(path)) != file.sha256:
            raise TamperedError(f"{file.key} is torn or altered", got=found, expected=file.sha256)
    return paths


def share_of(tensors: Mapping[str, Tensor], rank: int, world_size: int) -> list[str]:
    """Names of which a rank saves what it has: all that are split over the ranks, and a share of the others.

    Every world_size-th by falling size, so that shares weigh about the same.
    """
    split = [name for name, tensor in tensors.items() if hasattr(tensor, "to_local")]
    others = sorted(tensors.keys() - set(split), key=lambda name: (-tensors[name].numel(), name))
    return split + others[rank::world_size]


def snapshot(tensor: Tensor) -> Tensor:
    """A copy on the CPU that later training steps cannot change."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """One safetensors file of these tensors; equal content gives equal bytes."""
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    planner, folder = DefaultSavePlanner(), path.with_suffix(".parts")
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    planner.set_up_planner(dict(tensors), is_coordinator=True)
    [plan] = writer.prepare_global_plan([writer.prepare_local_plan(planner.create_local_plan())])
    writer.write_data(planner.finish_plan(plan), planner).wait()
    [written] = folder.iterdir()
    return written.replace(path)


def read_tensors(folder: Path, step: int, room: Room) -> None:
    """Fill the tensors that `room` gives. Raises: RcgError for another set of them, or of other shapes."""
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    reader, planner = HuggingFaceStorageReader(str(folder)), DefaultLoadPlanner()
    metadata = reader.read_metadata()
    saved = metadata.state_dict_metadata
    shapes = {name: tensor.size for name, tensor in saved.items() if isinstance(tensor, TensorStorageMetadata)}
    tensors = dict(room(step, json.loads((folder / REST).read_text()), shapes))
    differing = sorted(
        name
        for name in shapes.keys() | tensors.keys()
        if name not in shapes or name not in tensors or shapes[name] != tensors[name].shape
    )
    if differing:
        raise RcgError(f"the checkpoint of step {step} is of another model", got=", ".join(differing[:3]))
    planner.set_up_planner(tensors, metadata, is_coordinator=True)
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    reader.read_data(reader.prepare_local_plan(planner.create_local_plan()), planner).wait()
