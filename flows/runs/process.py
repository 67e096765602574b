"""Which process on which machine, and whether it still lives."""

import os
import socket
from pathlib import Path
from typing import Self

from pydantic import Field

from components.process import boot, pid_exists
from flows.identity.artifact import Record


class Process(Record):
    """A process that can be told from a later one with the same pid, and from one of another container."""

    host: str
    boot: str
    """Boot id and pid namespace; empty where the system has none."""
    pid: int = Field(ge=0, lt=2**31)
    started: str
    """Start time in clock ticks since boot; empty where the system does not tell."""

    @classmethod
    def current(cls) -> Self:
        pid = os.getpid()
        return cls(host=socket.gethostname(), boot=boot(), pid=pid, started=_started(pid) or "")

    def is_gone(self) -> bool:
        """True only if the process certainly ended: it ran on this machine, and is dead, a zombie or another one."""
        if (self.host, self.boot) != (socket.gethostname(), boot()):
            return False
        if not self.started:
            return not pid_exists(self.pid)
        return _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


def _started(pid: int) -> str | None:
    """Start time; None when there is no such process or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in ("Z", "X", "x") else fields[19]
