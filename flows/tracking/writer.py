"""The writer process: the only one that logs to MLflow while a stage runs. `python -m flows.tracking.writer`.

It reads a run's events from the store, so live logging, the end of a stage and a later replay are one code path.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from components.errors import RcgError
from components.store import Store, open_store
from flows.runs.events import read_events
from flows.runs.records import CommittedRun, load_run
from flows.tracking.client import StageRuns
from flows.tracking.live import SWEEPER_LOCK, URI_VARIABLE, warning_text
from flows.tracking.pending import end_of, lock_of, locked, mark_done, owner_lock_of
from flows.tracking.record import from_json

_NICENESS = 10
_LOCK_WAIT_S = 60
_POLL_S = 2.0
_PAUSE_S = 0.2
_SHOWN = ("metrics.json", "lineage.json", "report.html", "plots/*", "pictures/*")


class Ledger:
    """One request: a record, the store that has its run, and how many of its events MLflow has.

    `uri`: MLflow's with its password, which the request lacks.
    """

    def __init__(self, request: Path, uri: str) -> None:
        self.request = request
        self.tracking, self.record = from_json(request.read_text(), uri)
        self.store = open_store(self.record.store)
        self._runs: StageRuns | None = None
        self._position = (0, 0)

    @property
    def runs(self) -> StageRuns:
        """Connected when it is first needed. Raises: RcgError."""
        if self._runs is None:
            run = load_run(self.store, self.record.prefix)
            started_ms = None if run is None or self.record.reused else run.record.started_ms
            self._runs = StageRuns(self.tracking, self.record, started_ms)
            self._runs.describe()
        return self._runs

    def log_events(self) -> None:
        """Log the events that are new in the store."""
        events = list(read_events(self.store, self.record.prefix, after=self._position))
        if events:
            self.runs.log_events(events)
        for event in events:
            for name, key in event.images.items():
                if key.startswith(f"{self.record.prefix}/"):  # whoever wrote the event does not choose what is shown
                    self._log_image(name, event.step, key)
        if events:
            self._position = events[-1].position

    def _log_image(self, name: str, step: int, key: str) -> None:
        if self.runs.has_image(name, step):
            return
        from PIL import Image

        with Image.open(io.BytesIO(self.store.get(key))) as picture:
            self.runs.log_image(name, picture, step)

    def close(self) -> None:
        """Log all that is missing and how the run ended. Raises: RcgError; the request then stays pending."""
        run = load_run(self.store, self.record.prefix)
        if not self.record.reused:
            self.log_events()
        if run is None:
            self.runs.end(end_of(self.request), {})
        else:
            _log_results(self.runs, self.store, run)
            ended_ms = None if self.record.reused else run.record.ended_ms
            self.runs.end("FINISHED", {"rcg.content_digest": run.digest}, ended_ms)
        mark_done(self.request)


def _log_results(runs: StageRuns, store: Store, run: CommittedRun) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for name in sorted(run.manifest.files):
            if any(fnmatchcase(name, glob) for glob in _SHOWN):
                data = store.get(run.keys[name])
                if name == "metrics.json":
                    runs.log_results(json.loads(data), run.record.ended_ms)
                local = Path(scratch, name)
                local.parent.mkdir(parents=True, exist_ok=True)
                local.write_bytes(data)
                runs.log_file(local, str(Path("artifact", name).parent))


def follow(request: Path, answers: IO[str], uri: str) -> None:
    """Log events as they come, until the stage ends or its process does; when MLflow fails, say so once and go on."""
    ledger = Ledger(request, uri)
    said = resumed = False
    while True:
        with locked(owner_lock_of(request)) as ended:
            pass
        try:
            if ended:
                return ledger.close()
            if not resumed:
                ledger.runs.resume()
                resumed = True
            ledger.log_events()
        except RcgError as error:
            if not said:
                said = True
                _say(answers, warning_text(error))
            if ended:
                return None
        time.sleep(_POLL_S)


def _say(answers: IO[str], text: str) -> None:
    try:
        answers.write(" ".join(text.split()) + "\n")
        answers.flush()
    except OSError:  # nobody listens any more
        return


def replay(state: Path, wait_s: float = 0, *, uri: str = "") -> dict[Path, RcgError]:
    """Work off every pending request here and now; those that could not be, and why.

    Left out are those whose stage still runs. Others that another writer is at are waited for, `wait_s` at most.
    """
    failed: dict[Path, RcgError] = {}
    deadline = time.monotonic() + wait_s
    while True:
        busy = False
        for request in set(_pending(state)) - failed.keys():
            with locked(owner_lock_of(request)) as ended:
                pass  # looked at, not held: a stage that starts now takes it
            with locked(lock_of(request)) as mine:
                busy |= ended and not mine
                if mine and ended and request.exists():
                    try:
                        Ledger(request, uri).close()
                    except RcgError as error:
                        failed[request] = error
        if not busy or time.monotonic() > deadline:
            return failed
        time.sleep(_PAUSE_S)


def _pending(state: Path) -> list[Path]:
    return sorted(state.glob("*.pending.json"))


def sweep(state: Path, uri: str) -> None:
    """Replay until nothing new is left, holding the sweeper lock; what fails is left to a later command."""
    seen: set[Path] = set()
    while set(_pending(state)) - seen:
        with locked(state / SWEEPER_LOCK) as mine:
            if not mine:
                return
            seen = set(_pending(state))
            for request, problem in replay(state, uri=uri).items():
                sys.stderr.write(f"{request.name}: {problem}\n")
        # Looked at again once the lock is free: a request may have come in between.


def main(arguments: list[str]) -> None:
    os.nice(_NICENESS)
    mode, path, uri = arguments[0], Path(arguments[1]), os.environ.get(URI_VARIABLE, "")
    if mode == "--sweep":
        return sweep(path, uri)
    # What MLflow prints must not go to the stage process, which may have ended: writing to it would be an error.
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr), locked(lock_of(path), wait_s=_LOCK_WAIT_S) as mine:
        if mine:
            follow(path, answers, uri)
    return sweep(path.parent, uri)


if __name__ == "__main__":
    main(sys.argv[1:])
