import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.execution.dvc import dvc_command, dvc_env, repro

_CMD = "python -c 'import json, os; print(json.dumps(dict(os.environ)))' > seen"


def test_dvc_keeps_its_caches_to_the_user_and_stages_import_nothing_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    for command in (["git", "init", "-q"], [*dvc_command(), "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True, env=dvc_env(tmp_path))
    (tmp_path / "collection.lock").write_text("")
    (tmp_path / "dvc.yaml").write_text(
        json.dumps({"stages": {"x": {"cmd": _CMD, "outs": [{"seen": {"cache": False}}]}}})
    )
    assert repro([], tmp_path) == 0
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["PYTHONSAFEPATH"] == "1"
    assert seen["PATH"].startswith(f"{Path(sys.executable).parent}{os.pathsep}")
    cache = tmp_path / ".rcg/dvc"
    assert cache.stat().st_mode & 0o777 == 0o700
    assert list(cache.rglob("*")), "and that is where they are"


_IMPORTING = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}": os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["dvc", "repro"]
from flows.execution.quiet_dvc import main
main()
"""
_WAITING = """
import os, signal, sys
from pathlib import Path
from flows.execution.dvc import ended
child = ["sh", "-c", "sleep 0.3; kill -INT $PPID; sleep 0.6; touch whole"]
try: ended(child, Path(), os.environ)
except KeyboardInterrupt: print(Path("whole").exists())
"""


_ENDS = [
    *((_IMPORTING.replace("{module}", module), (130, "")) for module in ("dvc.config", "dvc.repo.open_repo")),
    (_WAITING, (0, "True\n")),
]


@pytest.mark.parametrize(("script", "expected"), _ENDS)
def test_an_interrupt(script: str, expected: tuple[int, str], tmp_path: Path) -> None:
    """DVC shows no traceback while it is imported, and is waited for when it works."""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout + done.stderr) == expected
