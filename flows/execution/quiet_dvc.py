"""DVC's command in a process that an interrupt ends at once while it is imported, which takes DVC a second."""

import sys

from flows.interrupts import CODE, ended_by_an_interrupt, raised_once


def main() -> int:
    """DVC's exit code."""
    ended_by_an_interrupt()
    from dvc import _debug, analytics, config, exceptions, logger  # noqa: F401  (what it imports when it is at work)
    from dvc.cli import main as dvc
    from dvc.cli import parser  # noqa: F401
    from dvc.repo import open_repo, reproduce  # noqa: F401
    from dvc.stage import run  # noqa: F401

    with raised_once() as interrupted:
        try:
            code: int = dvc() or 0
        except BaseException:
            if not interrupted():
                raise
            code = CODE
        return CODE if code and interrupted() else code


if __name__ == "__main__":
    sys.exit(main())
