"""DVC's command in a process that an interrupt ends at once while it is imported, which takes DVC a second."""

import signal
import sys

from flows.interrupts import ended_by_an_interrupt


def main() -> int:
    """DVC's exit code."""
    before = signal.getsignal(signal.SIGINT)
    ended_by_an_interrupt()
    from dvc import _debug, config, exceptions, logger  # noqa: F401  (what it imports before it listens)
    from dvc.cli import main as dvc

    signal.signal(signal.SIGINT, before)
    code = dvc()
    ended_by_an_interrupt()
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
