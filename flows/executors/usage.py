"""What a stage's process takes of the machine, as metrics `system/…`: told with its events, hashed into nothing."""

import contextlib
import os
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from components.training.report import Report

if TYPE_CHECKING:
    import torch

PREFIX = "system/"
"""MLflow shows such metrics on a page of their own."""
_INTERVAL_S = 10.0


class Usage:
    """CPU and memory of this process, and of its GPU; looked at once per interval, and at the first report."""

    def __init__(self, device: "torch.device", interval_s: float = _INTERVAL_S) -> None:
        self.device, self.looked = device, False
        self._interval_s = interval_s
        self._since = (time.monotonic(), time.process_time())

    def beside(self, report: Report) -> Report:
        """The report, with what was used added when it is time."""
        if self.looked and time.monotonic() - self._since[0] < self._interval_s:
            return report
        return replace(report, metrics={**report.metrics, **self.look()})

    def look(self) -> dict[str, float]:
        """CPU since the last look (100 is one core), memory now."""
        (wall, cpu), self._since = self._since, (time.monotonic(), time.process_time())
        self.looked = True
        seconds = max(self._since[0] - wall, 1e-9)
        used = {"cpu_percent": 100 * (self._since[1] - cpu) / seconds, "memory_mb": _resident_bytes() / 2**20}
        if self.device.type == "cuda":
            used |= _of_gpu(self.device)
        return {f"{PREFIX}{name}": value for name, value in used.items()}


def _resident_bytes() -> int:
    """Memory of this process now; the most that it ever had where the system does not tell."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _of_gpu(device: "torch.device") -> dict[str, float]:
    import torch

    free, total = torch.cuda.mem_get_info(device)
    used = {"gpu_memory_mb": (total - free) / 2**20}
    with contextlib.suppress(ImportError, RuntimeError):  # utilization needs NVIDIA's library
        used["gpu_percent"] = float(torch.cuda.utilization(device))
    return used
