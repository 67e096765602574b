"""The stage process's side: never waits long, never fails, warns once. It imports no mlflow and logs nothing itself."""

import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from components.errors import RcgError
from components.training.report import Report
from flows.children import python
from flows.tracking.client import probe
from flows.tracking.pending import EndStatus, done_path, leave_request, locked, note_end, owner_lock_of, pending_path
from flows.tracking.record import StageRecord, Tracking

SWEEPER_LOCK = "sweeper.lock"
LOG = "writer.log"
URI_VARIABLE = "RCG_MLFLOW_URI"
_SHORT_STAGE_S = 8.0  # a stage that ends sooner is logged once, at its end
_PATIENCE_S = 1.5
_children: list[subprocess.Popen[str]] = []  # kept, so that none is collected while it still runs

Warn = Callable[[str], None]


def note(tracking: Tracking | None, record: StageRecord, warn: Warn) -> None:
    """Tell MLflow of a run that was found finished; a repetition costs one look at a file."""
    if tracking is None or done_path(tracking, record).exists():
        return
    try:
        if not pending_path(tracking, record).exists():  # one that waits knows more: it is of whoever did the work
            leave_request(tracking, record)
        probe(tracking.uri)
        start_sweeper(tracking)
    except (RcgError, OSError) as error:
        warn(warning_text(error))


def warning_text(error: object) -> str:
    return f"not tracked for now, the work goes on and MLflow catches up with a later command: {error}"


def start_sweeper(tracking: Tracking) -> None:
    """Work off pending requests in a process of its own, unless one is at it."""
    with locked(tracking.state / SWEEPER_LOCK) as free:
        pass
    if free:
        _spawn("--sweep", tracking.state, tracking)


def _spawn(mode: str, path: Path, tracking: Tracking) -> "subprocess.Popen[str]":
    """A writer; the password of MLflow, which no file holds, is in its environment."""
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    with (tracking.state / LOG).open("a") as log:
        process = subprocess.Popen(
            python("flows.tracking.writer", mode, str(path)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if mode == "--follow" else log,
            stderr=log,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), URI_VARIABLE: tracking.uri},
            start_new_session=True,  # Ctrl-C ends the stage; the writer notices and ends in order
        )
    _children.append(process)
    return process


class LiveLog:
    """A stage that is at work, on its way to MLflow: a writer process follows the events that it leaves in the store.

    Every method returns at once, but end() of a short stage, which starts the writer: 1.5 s at most. Call end() after
    the commit, or on failure.
    """

    def __init__(self, tracking: Tracking, record: StageRecord, warn: Warn) -> None:
        self.tracking, self.record, self._warn = tracking, record, warn
        self._warned = False
        self._worth_following, self._ended, self._started = (threading.Event() for _ in range(3))
        self._process: subprocess.Popen[str] | None = None
        self._owner = ExitStack()
        self._thread = threading.Thread(target=self._watch, name="tracking", daemon=True)
        try:
            self._request = leave_request(tracking, record)
            self._owner.enter_context(locked(owner_lock_of(self._request), wait_s=_PATIENCE_S))
            self._thread.start()
        except OSError as error:
            self._warn_once(warning_text(error))

    def on_report(self, report: Report) -> None:
        """Metrics come: worth a writer of its own, now. What it logs it reads from the store."""
        if report.metrics or report.images:
            self._worth_following.set()

    def end(self, status: EndStatus = "FINISHED") -> None:
        """The stage is over. The writer is a process of its own and may take longer; nobody waits for it."""
        if not self._thread.is_alive():
            self._owner.close()
            return
        try:
            if not self._request.exists():  # worked off between a kill and this attempt's start
                leave_request(self.tracking, self.record)
            note_end(self._request, status)
        except OSError as error:
            self._warn_once(warning_text(error))
        self._ended.set()
        self._worth_following.set()
        self._owner.close()
        self._started.wait(_PATIENCE_S)

    def _watch(self) -> None:
        """Body of the thread."""
        try:
            probe(self.tracking.uri)
            self._worth_following.wait(_SHORT_STAGE_S)
            if self._ended.is_set():
                start_sweeper(self.tracking)
            else:
                process = _spawn("--follow", self._request, self.tracking)
                self._started.set()
                self._listen(process)
        except (RcgError, OSError) as error:
            self._warn_once(warning_text(error))
        finally:
            self._started.set()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        for answer in process.stdout or ():
            self._warn_once(answer.strip())
        if process.wait() != 0:
            self._warn_once(warning_text(f"the writer failed, see {self.tracking.state / LOG}"))

    def _warn_once(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(text)
