"""artifacts/<stage>/: the small files of a committed run, where DVC sees them; published by a swap of folders."""

import contextlib
import fnmatch
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from components.errors import ArtifactError, MissingError, TamperedError
from components.process import pid_exists
from components.store.base import Store, check_key
from flows.identity.artifact import SCHEMA, Record, RunPrefix, Sha256, digest_of, file_entry, pack_manifest, read_head
from flows.pipeline.table import Need, Stage
from flows.runs.ancestry import CONTEXT, keep_context
from flows.runs.records import MANIFEST, CommittedRun, find_run, load_run, tampered

POINTER = "run.json"
_SWAPS = 10


class Pointer(Record):
    """artifacts/<stage>/run.json: which run in the store this is."""

    schema_version: int
    fingerprint: Sha256
    prefix: RunPrefix
    digest: Sha256


class Workspace:
    """The project folder, as far as artifacts are concerned."""

    def __init__(self, root: Path) -> None:
        self.artifacts = root / "artifacts"

    def pointer(self, stage: str) -> Pointer | None:
        path = self.artifacts / stage / POINTER
        return Pointer.parse(path.read_bytes(), str(path)) if path.is_file() else None

    def parent(self, store: Store, need: Need) -> CommittedRun:
        """The run in the store that artifacts/<parent>/manifest.json stands for.

        Raises: MissingError when there is no manifest here or no such run there, TamperedError for an edited manifest.
        """
        path = self.artifacts / need.stage / MANIFEST
        if not path.is_file():
            what = f"the stages run in the wrong order: there is no {path}"
            raise MissingError(what, fix=f"run {need.stage} first: rcg run {need.stage}, or all in order: rcg repro")
        data = path.read_bytes()
        read_head(data, need.stage, str(path))
        digest = digest_of(data)
        pointer = self.pointer(need.stage)
        run = None
        if pointer is not None and pointer.digest == digest:
            run = load_run(store, pointer.prefix)
        if run is None or run.digest != digest:
            run = find_run(store, need.stage, digest)
        if run is None:
            raise _absent(need.stage, path, store, edited=pointer is not None and pointer.digest != digest)
        return run

    def publish(self, store: Store, run: CommittedRun, stage: Stage) -> Path:
        """Make artifacts/<stage>/ show the run. Untouched if it does already; never writes into an existing file.

        DVC may have linked the files that are there into its cache.
        """
        target = self.artifacts / stage.name
        names = [
            name
            for name in run.manifest.files.keys() - run.erased
            if any(fnmatch.fnmatchcase(name, glob) for glob in stage.shows)
        ]
        own = _own_files(store, run)
        if self._shows(target, run, names, own):
            return target
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self._sweep(stage.name)
        fresh = self.artifacts / f".{stage.name}.{os.getpid()}.{uuid.uuid4().hex}"
        try:
            fill(store, run, names, fresh)
            for name, data in own.items():
                (fresh / name).write_bytes(data)
            _swap(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return target

    def _shows(self, target: Path, run: CommittedRun, names: list[str], expected: Mapping[str, bytes]) -> bool:
        present = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
        if present != {*expected, *names} or target.is_symlink():
            return False
        if any((target / name).read_bytes() != data for name, data in expected.items()):
            return False
        return all(file_entry(target / name) == run.manifest.files[name] for name in names)

    def _sweep(self, stage: str) -> None:
        """Remove what publishers that were killed left behind."""
        for path in self.artifacts.glob(f".{stage}.*"):
            pid = path.name.split(".")[2]
            if pid.isdigit() and not pid_exists(int(pid)):
                shutil.rmtree(path, ignore_errors=True)


def _own_files(store: Store, run: CommittedRun) -> dict[str, bytes]:
    """What publishing adds to a run's files. A bundle travels alone, so it takes its circumstances along."""
    own = {MANIFEST: pack_manifest(run.manifest)[0], POINTER: _pointer_to(run).to_json()}
    context = keep_context(store, run)
    return own if context is None else own | {CONTEXT: context}


def fill(store: Store, run: CommittedRun, names: list[str], folder: Path) -> None:
    """Copy files of a run into a new folder, checked. Raises: TamperedError naming a file with other bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / check_key(name)
        store.download(run.keys[name], path)
        found = file_entry(path)
        if found != run.manifest.files[name]:
            path.unlink()
            raise tampered(run, name, found.sha256)


def _swap(fresh: Path, target: Path) -> None:
    """Put fresh in target's place. Another driver may do the same at the same time; both show equal files."""
    old = fresh.with_name(f"{fresh.name}.old")
    for _ in range(_SWAPS):
        with contextlib.suppress(FileNotFoundError):
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            continue
        finally:
            _remove(old)
        return
    raise ArtifactError(f"{target} cannot be replaced", fix="is something writing into it? Run the same command again")


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _pointer_to(run: CommittedRun) -> Pointer:
    return Pointer(schema_version=SCHEMA, fingerprint=run.fingerprint, prefix=run.prefix, digest=run.digest)


def _absent(stage: str, path: Path, store: Store, *, edited: bool) -> ArtifactError:
    if edited:
        return TamperedError(
            f"{path} is no manifest that this store committed: edited by hand, or of another store",
            fix=f"restore it (dvc checkout {path.parent}, or rcg run {stage}), or rcg data copy --from that store",
        )
    return MissingError(
        f"the {stage} artifact is not in the store",
        got=store.uri,
        expected=f"the run that {path} stands for",
        fix=f"rcg data copy --from the store that has it, or make it again: rcg run {stage}",
    )
