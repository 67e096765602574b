"""The table of the verbs of `rcg`, and what a person sees of an error."""

import os
import sys

import typer

from components.errors import RcgError, disk_error
from flows.commands import (
    adopt,
    cancel,
    data,
    doctor,
    edit,
    evaluate,
    explain,
    export_checkpoint,
    forget,
    gc,
    history,
    import_checkpoint,
    init,
    job,
    lineage,
    plan,
    play,
    preset,
    promote,
    register,
    report,
    repro,
    retrain,
    rollback,
    run,
    sample,
    snapshot,
    status,
    upscale,
    verify,
)
from flows.commands.terminal import say, show_log
from flows.interrupts import CODE, raised_once

VERBS = (
    init,
    snapshot,
    run,
    plan,
    repro,
    job,
    cancel,
    status,
    explain,
    adopt,
    sample,
    edit,
    upscale,
    play,
    evaluate,
    register,
    retrain,
    promote,
    gc,
    forget,
    rollback,
    history,
    import_checkpoint,
    export_checkpoint,
    lineage,
    verify,
    report,
    doctor,
)
"""In the order of `rcg --help`. A new verb: a module in flows/commands and its name here."""
GROUPS = (data, preset)

app = typer.Typer(
    name="rcg",
    help="Train and run image generators on your own pictures, without labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in VERBS:
    verb = module.__name__.rpartition(".")[2].replace("_", "-")
    app.command(verb, context_settings=getattr(module, "CONTEXT", None))(module.command)
for group in GROUPS:
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])


def command_line() -> None:
    """Run the command; an error meant for a person goes to stderr, with its exit code and no traceback."""
    # OpenMP threads that spin while others need the core make a step on a busy machine many times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.umask(os.umask(0o077) | 0o002)  # what is written here is for this user and, if he likes, his group
    show_log()
    with raised_once() as interrupted:
        try:
            app()
        except RcgError as error:
            code = _told(error)
        except OSError as error:  # of a disk, whose every place cannot be named beforehand
            code = _told(disk_error(error))
        except SystemExit as end:
            code = end.code  # type: ignore[assignment]
        except BaseException:  # an interrupt becomes another error in some libraries
            if not interrupted():
                raise
            code = CODE
        if code and interrupted():
            say("interrupted; the same command continues where it stopped", err=True)
            code = CODE
    sys.exit(code)


def _told(error: RcgError) -> int:
    say(f"error: {error}", color="red", err=True)
    return error.exit_code
