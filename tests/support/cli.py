"""The `rcg` command line in this process, in the current folder."""

import contextlib
import io
import sys

from typer.testing import CliRunner

from flows.commands.table import app, command_line


def rcg(*arguments: str, code: int = 0) -> str:
    """What the command prints on stdout; errors are raised as they are. The exit code has to be `code`."""
    found = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert found.exit_code == code, found.output
    return found.stdout


def rcg_told(*arguments: str) -> tuple[int, str]:
    """Exit code and output, errors told as to a person. An error without a name is not caught: it fails the test."""
    shown = io.StringIO()
    before, sys.argv = sys.argv, ["rcg", *arguments]
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            command_line()
    except SystemExit as end:
        return int(end.code or 0), shown.getvalue()
    finally:
        sys.argv = before
    return 0, shown.getvalue()
