"""What a person sees while a stage runs: a bar on a terminal, one line per interval otherwise."""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import typer

from flows.executors.usage import PREFIX

if TYPE_CHECKING:
    from rich.progress import TaskID

    from components.training.report import Report
    from flows.execution.job import EndStatus, Log
    from flows.runs.events import Event

_INTERVAL_S = 10.0


class _Display(Protocol):
    def show(self, report: "Report") -> None: ...
    def close(self) -> None: ...


class StageLog:
    """Hands reports to the terminal and, if there is one, to the tracking log."""

    def __init__(self, stage: str, attempt: int, live: "Log | None") -> None:
        self._live = live
        self._display: _Display = _Bar(stage) if sys.stderr.isatty() else _Lines(stage)
        again = f" (attempt {attempt}, continuing)" if attempt > 1 else ""
        typer.echo(f"{stage}: started{again}", err=True)

    def on_report(self, report: "Report") -> None:
        self._display.show(report)
        if self._live is not None:
            self._live.on_report(report)

    def end(self, status: "EndStatus") -> None:
        self._display.close()
        if self._live is not None:
            self._live.end(status)


def follow_line(event: "Event") -> None:
    """One line of a process that is followed."""
    of = f"/{event.total_steps}" if event.total_steps else ""
    typer.echo(f"  {event.step}{of}  {_numbers(event.metrics)}", err=True)


def _numbers(metrics: Mapping[str, float]) -> str:
    shown = [(name, value) for name, value in metrics.items() if not name.startswith(PREFIX)]
    return "  ".join(f"{name} {value:.4g}" for name, value in shown[:4])


class _Lines:
    def __init__(self, stage: str) -> None:
        self._stage, self._last = stage, -_INTERVAL_S

    def show(self, report: "Report") -> None:
        is_last = report.total_steps is not None and report.step >= report.total_steps
        if time.monotonic() - self._last < _INTERVAL_S and not is_last:
            return
        self._last = time.monotonic()
        of = f"/{report.total_steps}" if report.total_steps else ""
        typer.echo(f"{self._stage}: {report.step}{of}  {_numbers(report.metrics)}", err=True)

    def close(self) -> None:
        """Nothing to tidy up."""


class _Bar:
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

    def show(self, report: "Report") -> None:
        self._progress.update(
            self._task, completed=report.step, total=report.total_steps, numbers=_numbers(report.metrics)
        )

    def close(self) -> None:
        self._progress.stop()
