"""Pictures of other people's reports, written by a script that RCG_RIGS holds."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = (Path(__file__).parents[2] / os.environ.get("RCG_RIGS", "../shared") / "cases/odd_pictures.py").resolve()


def odd_pictures() -> ModuleType:
    """The script as a module; skips the test where it is missing."""
    spec = importlib.util.spec_from_file_location("odd_pictures", SCRIPT)
    if not SCRIPT.is_file() or spec is None or spec.loader is None:
        pytest.skip(f"no pictures of other people's reports: {SCRIPT} is missing (set RCG_RIGS)")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
