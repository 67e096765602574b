"""The `rcg` command. Nothing is imported here: an interrupt in the middle of that would show a traceback."""

import contextlib
import os
import sys

from flows.interrupts import CODE, ended_by_an_interrupt


def main() -> None:
    """Run the command."""
    ended_by_an_interrupt()
    from flows.commands.table import command_line

    try:
        command_line()
    except SystemExit as end:
        if end.code == CODE:  # at its end Python would wait for threads, and for one that was just starting for ever
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(CODE)
        raise


if __name__ == "__main__":
    main()
