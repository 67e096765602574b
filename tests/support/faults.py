"""Faults on purpose: a process that dies, or whose disk fails, at its k-th file operation.

An audit hook sees every open, rename, link, removal and new folder of this process before it happens, so that state
between any two of them can be had. What C and Rust libraries write by themselves is not seen; their files are renamed
or uploaded by Python, which is.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

Fault = Literal["kill", "ENOSPC", "EIO"]
FAULTS: tuple[Fault, ...] = ("kill", "ENOSPC", "EIO")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate"}


class Count:
    """Operations below a folder so far; `at` (from 1) is the one at which `fault` comes, None: never."""

    def __init__(self, root: Path, fault: Fault = "kill", at: int | None = None, end: Callable[[], None] | None = None):
        self.root, self.fault, self.at, self.n = f"{root.resolve()}/", fault, at, 0
        self.reads = fault == "EIO"  # of which reading fails, too
        self.end = end or (lambda: os.kill(os.getpid(), signal.SIGKILL))

    def install(self) -> "Count":
        """For good: an audit hook cannot be taken away. So this belongs in a process of its own."""
        sys.addaudithook(self._see)
        return self

    def _see(self, event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = args
            counts = isinstance(flags, int) and (bool(flags & _WRITES) or self.reads)
        elif event in _CHANGES:
            path, counts = args[0], True
        else:
            return
        if not counts or not isinstance(path, str | bytes | os.PathLike):
            return
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  (resolving would be an operation itself)
        if not name.startswith(self.root):
            return
        self.n += 1
        if self.n == self.at:
            if self.fault == "kill":
                self.end()
            raise OSError(getattr(errno, self.fault), os.strerror(getattr(errno, self.fault)), os.fsdecode(path))
