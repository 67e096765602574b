"""The `rcg` command line in this process, in the current folder."""

from typer.testing import CliRunner

from flows.__main__ import app


def rcg(*arguments: str, code: int = 0) -> str:
    """What the command prints on stdout; errors are raised as they are. The exit code has to be `code`."""
    found = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert found.exit_code == code, found.output
    return found.stdout
