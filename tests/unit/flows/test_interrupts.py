"""Ctrl-C ends a command at any moment, quietly and soon."""

import subprocess
import sys
from pathlib import Path

import pytest

_INTERRUPT = "import os, signal, sys; interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
_IMPORTING = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}: interrupt()
sys.meta_path.insert(0, Finder())
from flows.__main__ import main
main()
"""
_WORKING = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
import flows.interrupts
from flows.__main__ import main
from flows.commands.table import app
flows.interrupts.GRACE_S = 0.2
pool = ThreadPoolExecutor(1)

@app.command()
def probe():
{body}

sys.argv = ["rcg", "probe"]
main()
"""
_WORK = {
    "at work": "time.sleep(0.01); interrupt(); time.sleep(60)",
    "a thread just starting": """wait = threading.Event.wait
def interrupted(event, timeout=None):
    threading.Event.wait = wait
    time.sleep(0.1)
    interrupt()
threading.Event.wait = interrupted
pool.submit(int)""",
    "the exception is lost": """try: interrupt()
except BaseException: pass
time.sleep(60)""",
    "the exception becomes another": """try: interrupt()
except BaseException: raise ImportError("half a library")""",
    "twice": """flows.interrupts.GRACE_S = 60
try: interrupt()
finally: interrupt(); time.sleep(60)""",
}


def _ended(script: str, folder: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", _INTERRUPT + script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=20)
    return done.returncode, done.stderr + done.stdout


@pytest.mark.parametrize("module", ["typer", "flows.commands.table", "flows.commands.adopt"])
def test_while_the_command_is_imported(module: str, tmp_path: Path) -> None:
    assert _ended(_IMPORTING.format(module=module), tmp_path) == (130, "")


@pytest.mark.parametrize("what", _WORK)
def test_while_the_command_is_at_work(what: str, tmp_path: Path) -> None:
    body = "\n".join(f"    {line}" for line in _WORK[what].splitlines())
    code, said = _ended(_WORKING.format(body=body), tmp_path)
    assert code == 130
    quiet = what in ("the exception is lost", "twice")
    assert said == ("" if quiet else "interrupted; the same command continues where it stopped\n")


_ALONE = """
import subprocess
import flows.interrupts
from flows.execution.dvc import end_stages, ended
from flows.executors.sigterm import on_sigterm
flows.interrupts.GRACE_S = 1.0
stage = "import time; print('stage', flush=True); time.sleep(60)"
dvc = [sys.executable, "-c", f"import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
       f"subprocess.run([sys.executable, '-c', {stage!r}])"]
alone = threading.Timer(4, os.kill, (os.getpid(), signal.SIGNAL))
alone.daemon = True
alone.start()
with on_sigterm(end_stages), flows.interrupts.before_end(end_stages), flows.interrupts.raised_once():
    ended(dvc, None, dict(os.environ))
"""


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_a_signal_to_the_command_alone_ends_the_stage_below_its_dvc(signal: str, tmp_path: Path) -> None:
    """What is at work holds the pipe of the output open, and _ended() waits for it."""
    code, said = _ended("import threading\n" + _ALONE.replace("SIGNAL", signal), tmp_path)
    assert (code, said) == (130 if signal == "SIGINT" else 0, "stage\n")


def test_one_that_is_not_to_reach_the_command_does_not(tmp_path: Path) -> None:
    script = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + _WORKING.format(body="    interrupt(); print('worked')")
    assert _ended(script, tmp_path) == (0, "worked\n")
