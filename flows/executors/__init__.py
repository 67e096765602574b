"""Where a stage runs. A new executor: one module here and one branch below."""

from typing import Literal

from flows.executors.base import Executor, Job, RankResult, WorkerSettings

__all__ = ["Executor", "ExecutorName", "Job", "RankResult", "WorkerSettings", "open_executor"]

ExecutorName = Literal["inline", "ray"]


def open_executor(name: ExecutorName, *, max_failures: int = 2) -> Executor:
    """The executor of that name; its libraries are imported now. Ray replaces lost workers `max_failures` times."""
    if name == "ray":
        from flows.executors.ray_train import RayExecutor

        return RayExecutor(max_failures)
    from flows.executors.inline import InlineExecutor

    return InlineExecutor()
