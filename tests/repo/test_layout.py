"""The house keeps its own rules: sizes, names, one importer each."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from flows.identity.closure import DATA

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("flows/**/*.py"), *ROOT.glob("components/**/*.py")])
TESTS = sorted([*ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")])
BANNED_NAMES = {"utils", "helpers", "common", "misc", "manager", "core"}
BANNED_SUFFIXES = ("Manager", "Handler", "Helper", "Mixin")
LONELY = {
    "ray": {"flows/executors/ray_local.py", "flows/executors/ray_train.py"},
    "kubernetes": {"flows/executors/kuberay/api.py"},
    "boto3": {"components/store/s3_clients.py"},
    "obstore": {"components/store/s3_clients.py"},
    "gradio": {f"flows/play/{name}.py" for name in ("page", "forms", "edit_tab", "server")},
}


def _id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=_id)
def test_module_is_short_and_well_named(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400, "split it: a module that outgrows one file becomes a folder"
    assert path.stem not in BANNED_NAMES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert not node.name.endswith(BANNED_SUFFIXES), node.name
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is longer than a screen"


@pytest.mark.parametrize("path", TESTS, ids=_id)
def test_test_module_is_not_endless_and_imports_what_is_public(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("components", "flows")):
            assert not [name.name for name in node.names if name.name.startswith("_")]


def test_files_beside_the_code_are_packaged_and_count_as_code() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaged = project["tool"]["setuptools"]["package-data"]["*"]
    assert packaged == [f"*{suffix}" for suffix in DATA]
    others = {path for room in ("flows", "components") for path in ROOT.glob(f"{room}/**/*.*")} - set(SOURCES)
    files = [path for path in others if path.is_file() and "__pycache__" not in path.parts]
    assert {path.suffix for path in files} <= set(DATA)
    assert all((path.parent / "__init__.py").is_file() for path in files)


def test_only_pages_make_markup() -> None:
    markup = re.compile(r"</?(svg|html|div|p|td|span|li)\b[^>]*>|\bhtml\.escape\b|from html import")
    for path in SOURCES:
        if not _id(path).startswith("components/pages/"):
            assert not markup.search(path.read_text()), f"{_id(path)}: templates and components/pages make markup"


def test_training_loop_fits_on_a_few_screens() -> None:
    assert len((ROOT / "components/training/loop.py").read_text().splitlines()) <= 150


def test_heavy_packages_have_one_importer() -> None:
    for package, allowed in LONELY.items():
        pattern = re.compile(rf"^\s*(import|from) {package}\b", re.MULTILINE)
        importers = {_id(path) for path in SOURCES if pattern.search(path.read_text())}
        assert importers <= allowed, f"{package} may be imported by {allowed} only"


def test_only_commands_find_the_project_and_print() -> None:
    """Rooms are handed the project, and log."""
    door = "flows/commands/"
    finders = ("flows/settings.py", "flows/execution/project.py", "flows/execution/dvc.py")
    for path in SOURCES:
        if not _id(path).startswith(door):
            assert not re.search(r"^\s*(import|from) typer\b", path.read_text(), re.MULTILINE), _id(path)
            if _id(path) not in finders:
                assert not re.search(r"Project\.here\(|load_settings\(|Path\.cwd\(", path.read_text()), _id(path)


def test_one_room_starts_git_and_python_and_one_module_writes_to_the_terminal() -> None:
    """Both are safe in one place: flows/children.py and flows/commands/terminal.py."""
    for path in SOURCES:
        text = path.read_text()
        starts = re.search(r"\[\s*[\"']git[\"']|sys\.executable, [\"']-m[\"']", text)
        assert starts is None or _id(path) == "flows/children.py", _id(path)
        assert _id(path) == "flows/commands/terminal.py" or not re.search(r"typer\.s?echo\(", text), _id(path)


def test_the_command_line_loads_no_room() -> None:
    """`rcg --help` loads every command module; what a command does is imported when it runs."""
    script = (
        "import sys; import flows.__main__, flows.commands.table;"
        "heavy = {'pydantic', 'numpy', 'torch', 'yaml', 'mlflow'};"
        "rooms = {name for name in sys.modules if name.startswith('flows.') and not name.startswith('flows.commands')};"
        "print(sorted(heavy & set(sys.modules) | rooms - {'flows.__main__', 'flows.interrupts'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_components_never_look_at_the_environment_or_the_global_generator() -> None:
    banned = re.compile(
        r"os\.environ|os\.getenv|torch\.manual_seed|np\.random\.(seed|rand|normal|uniform)\b|\.cuda\(\)"
    )
    for path in ROOT.glob("components/**/*.py"):
        assert not banned.search(path.read_text()), _id(path)


def test_security_names_tests_that_exist() -> None:
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for row in re.findall(r"^\|.*\|([^|]*)\|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE):
        for part in row.split(";"):
            named = re.findall(r"[\w/]*test_\w+\.py", part)
            found = [[text for path, text in texts.items() if f"/{path}".endswith(f"/{name}")] for name in named]
            assert all(found), part
            places = [text for some in found for text in some] or list(texts.values())
            assert all(any(word in text for text in places) for word in re.findall(r"`(\w+)`", part)), part
