"""Which machine this is, and which of its processes live."""

import contextlib
import hashlib
import os
import socket
from pathlib import Path


def boot() -> str:
    """Boot id and pid namespace; empty where the system has none."""
    with contextlib.suppress(OSError):
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot_id} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def machine() -> str:
    """A short name of this boot and pid namespace: a pid means something only together with it."""
    return hashlib.sha256(f"{socket.gethostname()} {boot()}".encode()).hexdigest()[:8]


def pid_exists(pid: int) -> bool:
    """Whether a process of this machine has that pid."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
