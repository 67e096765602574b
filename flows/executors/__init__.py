"""Where a stage runs. A new executor: one module here and one branch below."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flows.executors.base import Attempt, Executor, Launch, Launcher, RankResult, fit_threads

if TYPE_CHECKING:
    from flows.settings import Settings

__all__ = [
    "Attempt",
    "Executor",
    "ExecutorName",
    "Launch",
    "Launcher",
    "RankResult",
    "fit_threads",
    "open_executor",
    "open_launcher",
]

ExecutorName = Literal["inline", "ray"]


def open_executor(name: ExecutorName, *, max_failures: int = 2) -> Executor:
    """The executor of that name; its libraries are imported now. Ray replaces lost workers `max_failures` times."""
    if name == "ray":
        from flows.executors.ray_train import RayExecutor

        return RayExecutor(max_failures)
    from flows.executors.inline import InlineExecutor

    return InlineExecutor()


def open_launcher(settings: "Settings", root: Path, say: Callable[[str], None]) -> Launcher:
    """The executor kuberay. `root` is the checkout, `say` gets a line for a person now and then."""
    from flows.executors.kuberay import open_kuberay

    return open_kuberay(settings, root, say)
