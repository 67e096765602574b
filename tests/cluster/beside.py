"""Long stories in threads, beside the tests that run meanwhile."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Beside:
    """A story is a function; what it returns or raises, the first test that asks for its result gets."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(thread_name_prefix="story")
        self._begun: list[Future[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def begin(self, story: Callable[[], T]) -> "Future[T]":
        future = self._threads.submit(story)
        self._begun.append(future)
        return future

    def wait(self) -> None:
        """Until every story has ended, however it did."""
        wait(self._begun)
