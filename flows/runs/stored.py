"""What a stage reads and writes, backed by a store."""

import contextlib
import hashlib
import shutil
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from components.documents import parse_json
from components.errors import ArtifactError, ConflictError, MissingError, TamperedError
from components.store.base import Store, check_key
from flows.identity.artifact import (
    SCHEMA,
    FileEntry,
    InputArtifact,
    Manifest,
    SealedRecord,
    digest_of,
    file_entry,
    readable_json,
)
from flows.runs.records import MEMO, CommittedRun, tampered


class StoredArtifact:
    """A committed run as a stage's input. A file's sha256 is checked when it is first asked for, whatever the store."""

    def __init__(self, store: Store, run: CommittedRun, scratch: Path) -> None:
        self._store, self._run, self._scratch = store, run, scratch
        self._checked: dict[str, Path] = {}
        self._locks = defaultdict[str, threading.Lock](threading.Lock)

    @property
    def manifest(self) -> Manifest:
        return self._run.manifest

    @property
    def digest(self) -> str:
        return self._run.digest

    def path(self, name: str) -> Path:
        with self._locks[name]:
            if name not in self._checked:
                self._checked[name] = self._fetch(name)
            return self._checked[name]

    def release(self, name: str) -> None:
        with self._locks[name]:
            if name in self._checked and self._store.local_path(self._run.keys[name]) is None:
                self._checked.pop(name).unlink()

    def read_bytes(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def read_json(self, name: str) -> Any:
        return parse_json(self.read_bytes(name), f"{name} of {self._run.stage}")

    def _fetch(self, name: str) -> Path:
        entry = self.manifest.files.get(name)
        if entry is None:
            known = ", ".join(sorted(self.manifest.files)[:10])
            raise MissingError(f"the {self._run.stage} artifact has no file {name}", got=known)
        if name in self._run.erased:
            raise MissingError(
                f"{name} of the {self._run.stage} artifact was erased: it held a picture that is to be forgotten",
                got=self._run.prefix,
                fix="list the pictures anew without it (`rcg snapshot --rebuild`) and run `rcg repro`",
            )
        key = self._run.keys[name]
        path = self._store.local_path(key)
        if path is None:
            path = self._scratch / check_key(name)
            self._store.download(key, path)
        found = file_entry(path)
        if found != entry:
            raise tampered(self._run, name, found.sha256)
        return path


class StoredInputs:
    """Parents by stage name, and collection.lock as a file in scratch."""

    def __init__(self, parents: Mapping[str, StoredArtifact], source: str, lock: str | None, scratch: Path) -> None:
        self.source = source
        self._parents = parents
        self.collection_lock: Path | None = None
        if lock is not None:
            self.collection_lock = scratch / "collection.lock"
            self.collection_lock.parent.mkdir(parents=True, exist_ok=True)
            self.collection_lock.write_text(lock)

    def __getitem__(self, stage: str) -> InputArtifact:
        if stage not in self._parents:
            known = ", ".join(self._parents) or "none"
            raise ArtifactError(
                f"this stage does not declare {stage} as a parent", got=known, fix="add it in flows/pipeline/table.py"
            )
        return self._parents[stage]

    def __contains__(self, stage: object) -> bool:
        return stage in self._parents


def memo_folder(stage: str, key: str) -> str:
    """Where a memoised file and its entry.json lie."""
    return f"{MEMO}{stage}/{hashlib.sha256(key.encode()).hexdigest()}"


class Memo(SealedRecord):
    """memo/<stage>/<sha256 of key>/entry.json: the commit of one memoised file."""

    schema_version: int
    key: str
    data: str
    """Key in the store."""
    file: FileEntry
    versions: dict[str, str]


class StoredOutput:
    """Writes below out/<attempt>/ of a run and remembers what it wrote; the job commits it.

    `store` is fenced. With `mix_versions` a memoised file counts that was made by other library versions.
    """

    def __init__(
        self, store: Store, prefix: str, attempt: int, scratch: Path, *, versions: Mapping[str, str], mix_versions: bool
    ) -> None:
        self.files: dict[str, FileEntry] = {}
        self.keys: dict[str, str] = {}
        self._store, self._folder, self._scratch = store, f"{prefix}/out/{attempt}", scratch
        self._stage = prefix.split("/")[1]
        self._versions, self._mix_versions = dict(versions), mix_versions
        self._checked: dict[str, Path] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        check_key(name)
        with self._temporary(Path(name).name) as path:
            yield path
            key = f"{self._folder}/{name}"
            entry = self._entry(name, path)
            self._claim(name, key, entry)
            self._store.upload(key, path)

    def write_bytes(self, name: str, data: bytes) -> None:
        key = f"{self._folder}/{check_key(name)}"
        self._claim(name, key, FileEntry(size=len(data), sha256=digest_of(data)))
        self._store.put(key, data)

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, readable_json(value, name))

    def memoised(self, name: str, key: str, make: Callable[[Path], None]) -> FileEntry:
        check_key(name)
        memo = self._find_memo(name, key)
        if memo is None:
            memo = self._make_memo(name, key, make)
        elif memo.versions != self._versions and not self._mix_versions:
            raise ArtifactError(
                f"a stored part of {self._stage} was made by other library versions",
                got=_changes(memo.versions, self._versions),
                fix=f"accept the mixture (RCG_MIX_VERSIONS=true), or raise {self._stage}.numerics to make all again",
            )
        self._claim(name, memo.data, memo.file)
        return memo.file

    def path(self, name: str) -> Path:
        if name not in self.keys:
            raise MissingError(f"the stage has not written {name}", got=", ".join(sorted(self.keys)[:10]) or "nothing")
        return self._fetch(name, self.keys[name], self.files[name])

    def _fetch(self, name: str, key: str, entry: FileEntry) -> Path:
        """A local path of the object, whose bytes are checked once. Raises: MissingError, TamperedError."""
        if key not in self._checked:
            path = self._store.local_path(key)
            if path is None:
                path = self._scratch / "read" / name
                self._store.download(key, path)
            found = file_entry(path)
            if found != entry:
                raise TamperedError(f"{key} does not match its digest", got=found.sha256, expected=entry.sha256)
            self._checked[key] = path
        return self._checked[key]

    def _find_memo(self, name: str, key: str) -> Memo | None:
        """The committed file, if entry and bytes are as they were written; what is lost or damaged is made again."""
        folder = memo_folder(self._stage, key)
        try:
            memo = Memo.parse(self._store.get(f"{folder}/entry.json"), f"{self._store.uri}/{folder}/entry.json")
            if memo.key != key or memo.data != f"{folder}/{memo.file.sha256}":
                return None
            self._fetch(name, memo.data, memo.file)
        except ArtifactError:
            return None
        return memo

    def _make_memo(self, name: str, key: str, make: Callable[[Path], None]) -> Memo:
        folder = memo_folder(self._stage, key)
        with self._temporary(Path(name).name) as path:
            make(path)
            entry = self._entry(name, path)
            data = f"{folder}/{entry.sha256}"
            self._store.upload(data, path)
        memo = Memo(schema_version=SCHEMA, key=key, data=data, file=entry, versions=self._versions)
        commit = f"{folder}/entry.json"
        try:
            self._store.put(commit, memo.to_json(), if_absent=True)
        except ConflictError:
            winner = self._find_memo(name, key)
            if winner is not None:
                return winner
            self._store.put(commit, memo.to_json())  # the winner's bytes are gone, so nothing can depend on its entry
        return memo

    def _entry(self, name: str, path: Path) -> FileEntry:
        if not path.is_file():
            raise ArtifactError(f"the stage was to write {name} and did not")
        return file_entry(path)

    def _claim(self, name: str, key: str, entry: FileEntry) -> None:
        with self._lock:
            if name in self.files:
                raise ArtifactError(f"the stage writes {name} twice", fix="give each file its own name")
            self.files[name], self.keys[name] = entry, key

    @contextlib.contextmanager
    def _temporary(self, name: str) -> Iterator[Path]:
        folder = self._scratch / uuid.uuid4().hex
        folder.mkdir(parents=True)
        try:
            yield folder / name
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name, 'absent')} there, {new.get(name, 'absent')} here" for name in names)
