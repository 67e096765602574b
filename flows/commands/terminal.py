"""What the commands share: a stage's progress as a bar or lines, one line about its outcome, and the log on stderr."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from components.printable import one_line, printable, redacted
from components.training.report import Report

if TYPE_CHECKING:
    from rich.progress import TaskID

    from flows.execution.work import EndStatus, Outcome
    from flows.runs.events import Event
    from flows.runs.lease import LeaseRecord

StageName = Annotated[str, typer.Argument(metavar="STAGE", help="A stage of the pipeline, e.g. pixels.")]

_INTERVAL_S = 10.0


def say(text: str, *, err: bool = False, color: str | None = None, end: str = "\n") -> None:
    """All that a command tells goes through here: without passwords, and no text of others moves the cursor."""
    typer.secho(printable(redacted(text)) + end, fg=color, err=err, nl=False)


def say_lines(lines: Iterable[str]) -> None:
    """Lines that stay lines, whatever text of others is in them."""
    say("\n".join(map(one_line, lines)))


def warn(lines: Iterable[str]) -> None:
    """What may go wrong, before it does."""
    for line in lines:
        say(f"warning: {one_line(line)}", color="yellow", err=True)


def finite(value: float | None) -> float | None:
    """Callback of every option that takes a float: NaN passes each range."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("it has to be a finite number")
    return value


class _LogLines(logging.Handler):
    """Information as plain lines on stderr, warnings in yellow; beside a progress bar both stay whole lines."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            say(f"warning: {record.getMessage()}", color="yellow", err=True)
        else:
            say(record.getMessage(), err=True)


def show_log() -> None:
    """Let the rooms' log reach the person at the terminal."""
    for package in ("flows", "components"):
        log = logging.getLogger(package)
        log.setLevel(logging.INFO)
        if not any(isinstance(handler, _LogLines) for handler in log.handlers):
            log.addHandler(_LogLines())


def outcome_line(outcome: "Outcome", where: str) -> str:
    """One line: what became of a stage, where its result is, and which run that is."""
    words = {"made": "done", "reused": "already done", "followed": "done by the process that was followed"}
    run = outcome.run
    seconds = (run.record.ended_ms - run.record.started_ms) / 1000
    took = f" in {seconds:.1f} s" if outcome.how == "made" else ""
    return f"{run.stage}: {words[outcome.how]}{took} · {where} · run {run.fingerprint[:10]} · content {run.digest[:10]}"


class Terminal:
    """Shows stages that run here, and processes elsewhere that are followed."""

    def stage(self, stage: str, attempt: int) -> "StageLines | StageBar":
        again = f" (attempt {attempt}, continuing)" if attempt > 1 else ""
        say(f"{stage}: started{again}", err=True)
        return StageBar(stage) if sys.stderr.isatty() else StageLines(stage)

    def follow(self, lease: "LeaseRecord") -> None:
        say(f"{lease.holder} is at work on this run; following attempt {lease.attempt}")

    def event(self, event: "Event") -> None:
        say(f"  {_progress(event)}", err=True)


class StageLines:
    """One line per interval, and the last step."""

    def __init__(self, stage: str) -> None:
        self._stage, self._last = stage, -_INTERVAL_S

    def on_report(self, report: Report) -> None:
        is_last = report.total_steps is not None and report.step >= report.total_steps
        if time.monotonic() - self._last < _INTERVAL_S and not is_last:
            return
        self._last = time.monotonic()
        say(f"{self._stage}: {_progress(report)}", err=True)

    def end(self, status: "EndStatus") -> None:
        """Every line is complete already."""


class StageBar:
    """A bar, removed at the end."""

    def __init__(self, stage: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task: TaskID = self._progress.add_task(stage, total=None, numbers="")
        self._progress.start()

    def on_report(self, report: Report) -> None:
        self.show(report.step, report.total_steps, _numbers(report.metrics))

    def show(self, done: int, total: int | None, text: str) -> None:
        from rich.markup import escape

        self._progress.update(self._task, completed=done, total=total, numbers=escape(one_line(text)))

    def end(self, status: "EndStatus") -> None:  # noqa: ARG002  (a bar ends in one way)
        self._progress.stop()


@contextmanager
def phases(command: str, n: int) -> Iterator[Callable[[str], None]]:
    """Gives a function to call with what begins, up to n times: a bar on a terminal, a line for each otherwise."""
    bar = StageBar(command) if sys.stderr.isatty() else None
    begun = 0

    def begin(what: str) -> None:
        nonlocal begun
        if bar is None:
            say(f"{command}: {what} ({begun + 1} of {n})", err=True)
        else:
            bar.show(begun, n, what)
        begun += 1

    try:
        yield begin
    finally:
        if bar is not None:
            bar.end("FINISHED")


@contextmanager
def counted(command: str, n: int) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with how many of n are done: a bar on a terminal, a line per interval otherwise."""
    shown = StageBar(command) if sys.stderr.isatty() else StageLines(command)
    try:
        yield lambda done: shown.on_report(Report(done, total_steps=n))
    finally:
        shown.end("FINISHED")


class _Progress(Protocol):
    @property
    def step(self) -> int: ...
    @property
    def total_steps(self) -> int | None: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


def _progress(report: _Progress) -> str:
    of = f"/{report.total_steps}" if report.total_steps else ""
    return f"{report.step}{of}  {_numbers(report.metrics)}"


def _numbers(metrics: Mapping[str, float]) -> str:
    from flows.executors.usage import PREFIX

    shown = [(name, value) for name, value in metrics.items() if not name.startswith(PREFIX)]
    return "  ".join(f"{name} {value:.4g}" for name, value in shown[:4])
