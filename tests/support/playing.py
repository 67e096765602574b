"""`rcg play` as a process of its own that puts down every address which it looks up or connects to."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_WATCHED = """
import sys
log = open(sys.argv.pop(1), "a", buffering=1)
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        print(event, args[1] if event == "socket.connect" else args[0], file=log)
sys.addaudithook(hook)
from flows.__main__ import main
main()
"""


@dataclass
class Playing:
    """A server at work."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def contacts(self) -> list[str]:
        """Hosts that the process spoke to or asked for, but this machine's own."""
        found = [line.strip() for line in self.log.read_text().splitlines()]
        return [line for line in found if "127.0.0.1" not in line and "localhost" not in line]


@contextlib.contextmanager
def playing(bundle: Path, folder: Path) -> Iterator[Playing]:
    """Until the end of the block, when Ctrl-C ends it."""
    log = folder / "contacts.log"
    env = os.environ | {"RCG_MLFLOW_URI": "off", "TMPDIR": str(folder), "RCG_DEVICE": "cpu"}
    command = [sys.executable, "-c", _WATCHED, str(log), "play", "--model", str(bundle), "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("http://127.0.0.1:"), line
            yield Playing(line.split()[0], process, log)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
