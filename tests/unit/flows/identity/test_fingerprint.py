import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.identity import closure
from flows.identity.closure import module_digests
from flows.identity.fingerprint import Identity, differences, identify
from flows.pipeline.table import KINDS

ROOT = Path(__file__).parents[4]
SOURCES = {
    "flows/__init__.py": "",
    "flows/identity/artifact.py": "class Output: ...",
    "flows/settings.py": "WORKERS = 1",
    "flows/stages/__init__.py": '"""Stages."""',
    "flows/stages/rdm.py": (
        "from components.rdm import build\nfrom flows.identity.artifact import Output\n\n\n"
        "def run(params):\n    from components.nn.norm import norm\n    return build(params) + norm\n"
    ),
    "flows/stages/pixels.py": "import components.pixels\n",
    "components/__init__.py": "",
    "components/errors.py": "class RcgError(Exception): ...",
    "components/store/__init__.py": "X = 1",
    "components/base.py": "from components.errors import RcgError\nfrom components.store import X\nclass Config: ...\n",
    "components/rdm/__init__.py": "from .denoiser import build\n",
    "components/rdm/denoiser.py": "from ..base import Config\n\n\ndef build(params):\n    return params * 2\n",
    "components/nn/__init__.py": "",
    "components/nn/norm.py": "norm = 3\n",
    "components/nn/unused.py": "unused = 3\n",
    "components/pixels/__init__.py": "",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def rdm(tree: Path) -> dict[str, str]:
    return module_digests("flows.stages.rdm", tree)


def test_the_closure_is_what_the_stage_imports(tree: Path) -> None:
    assert list(rdm(tree)) == [
        "components",
        "components.base",
        "components.nn",
        "components.nn.norm",
        "components.rdm",
        "components.rdm.denoiser",
        "flows.stages",
        "flows.stages.rdm",
    ]
    assert list(module_digests("flows.stages.pixels", tree)) == [
        "components",
        "components.pixels",
        "flows.stages",
        "flows.stages.pixels",
    ]


def test_templates_of_a_package_are_code_of_it(tree: Path) -> None:
    before = rdm(tree)
    (tree / "components/nn/page.html").write_text("<p>")
    (tree / "components/nn/page.html~").write_text("no template")
    (tree / "components/pixels/other.css").write_text("not imported")
    with_page = rdm(tree)
    assert {name for name in before if before[name] != with_page[name]} == {"components.nn"}
    (tree / "components/nn/page.html").write_text("<b>")
    assert rdm(tree)["components.nn"] not in (before["components.nn"], with_page["components.nn"])


def edit(tree: Path, name: str, text: str) -> set[str]:
    """Modules whose digest differs after writing text to a file."""
    before = rdm(tree)
    (tree / name).write_text(text)
    after = rdm(tree)
    return {module for module in before.keys() | after.keys() if before.get(module) != after.get(module)}


@pytest.mark.parametrize(
    "text",
    [
        "from ..base import Config\ndef build(params): return params * 2  # doubled",
        '"""Denoiser."""\n\nfrom ..base import Config\n\ndef build(params):\n    """Twice."""\n    return (params * 2)',
        "# new\nfrom ..base import (\n    Config,\n)\n\ndef build(params,):\n    'Twice.'\n    return params * 2\n",
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(tree: Path, text: str) -> None:
    assert edit(tree, "components/rdm/denoiser.py", text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "from ..base import Config\ndef build(params): return params * 3",
        "from ..base import Config\ndef build(params): return params * 2.0",
        "from ..base import Config\ndef build(params): return params * '2'",
        "from ..base import Config\ndef build(params): return 2 * params",
        "from ..base import Config\ndef build(params=None): return params * 2",
        "from ..base import Config\ndef build(params): return params * 2 or None",
        "from ..base import Config\nasync def build(params): return params * 2",
        "from ..base import Config\n@cache\ndef build(params): return params * 2",
    ],
)
def test_code_counts(tree: Path, text: str) -> None:
    assert edit(tree, "components/rdm/denoiser.py", text) == {"components.rdm.denoiser"}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("x = None", "x = ()"),
        ("x = ''", "x = b''"),
        ("x = 1", "x = True"),
        ("x = 1", "x = 1.0"),
        ("x = 0.0", "x = -0.0"),
        ("def f(): return", "def f(): return None"),
        ("x = [1, 2]", "x = [1, [2]]"),
        ("x = {**a}", "x = {None: a}"),
        ("x = a[:1]", "x = a[1:]"),
        ("f(a, b=c)", "f(a, c)"),
        ("f(*a)", "f(a)"),
        ("x = f'{a}'", "x = f'{a!r}'"),
        ("if a:\n  b\nelse:\n  c", "if a:\n  b\nc"),
        ("x = 'a'", "x = 'a\\x1f'"),
        ("import a", "import a as b"),
        ("from . import a", "from .. import a"),
        ("a < b < c", "(a < b) < c"),
        ("x: int = 1", "x = 1"),
        ("def f(a, /): ...", "def f(a): ..."),
        ("def f(*, a): ...", "def f(a): ..."),
        ("lambda: 'x'", "lambda: 'y'"),
        ("x = 'doc'", "x = 'cod'"),
    ],
)
def test_different_code_never_looks_equal(left: str, right: str) -> None:
    assert closure._read(left.encode(), "m", False)[0] != closure._read(right.encode(), "m", False)[0]


def test_plumbing_unused_modules_and_other_stages_do_not_count(tree: Path) -> None:
    for name in (
        "flows/identity/artifact.py",
        "flows/settings.py",
        "components/errors.py",
        "components/store/__init__.py",
        "components/nn/unused.py",
        "flows/stages/pixels.py",
        "components/pixels/__init__.py",
    ):
        assert edit(tree, name, "CHANGED = 1") == set(), name


def test_a_new_import_widens_the_closure(tree: Path) -> None:
    text = "from ..base import Config\nimport components.nn.unused\ndef build(params): return params * 2"
    assert edit(tree, "components/rdm/denoiser.py", text) == {"components.rdm.denoiser", "components.nn.unused"}


def test_code_of_a_package_counts(tree: Path) -> None:
    assert edit(tree, "components/nn/__init__.py", "import sys") == {"components.nn"}


def identity(**changes: object) -> Identity:
    values = {
        "schema_version": 1,
        "stage": "rdm",
        "params": {"numerics": 1, "train": {"steps": 10, "lr": 1e-3}},
        "inputs": {"encode": "a" * 64},
        "modules": {"components.rdm": "b" * 64},
    }
    return Identity.model_validate(values | changes)


def test_what_moves_a_fingerprint_and_how_it_is_explained() -> None:
    base = identity()
    for changed, expected in (
        (identity(params={"numerics": 2, "train": {"steps": 10, "lr": 1e-3}}), [("params", "numerics", 1, 2)]),
        (identity(params={"numerics": 1, "train": {"steps": 10}}), [("params", "train.lr", 1e-3, None)]),
        (identity(inputs={"encode": "c" * 64}), [("inputs", "encode", "a" * 64, "c" * 64)]),
        (identity(modules={"components.rdm": "c" * 64}), [("modules", "components.rdm", "b" * 64, "c" * 64)]),
        (identity(schema_version=0), [("schema", "schema_version", 1, 0)]),
    ):
        assert differences(base, changed) == expected
        assert changed.fingerprint != base.fingerprint
    assert differences(base, identity()) == []
    assert identity().fingerprint == base.fingerprint
    assert identity(stage="pixels").fingerprint != base.fingerprint
    assert len(base.fingerprint) == 64


def test_the_order_of_params_does_not_matter() -> None:
    assert identity(params={"train": {"lr": 1e-3, "steps": 10}, "numerics": 1}).fingerprint == identity().fingerprint


def test_equal_numbers_of_other_types_are_other_params() -> None:
    assert differences(identity(params={"a": 1}), identity(params={"a": 1.0})) == [("params", "a", 1, 1.0)]


def test_all_stages_quickly_and_without_importing_them() -> None:
    code = (
        "import sys, time; from flows.identity.fingerprint import identify; from flows.pipeline.table import KINDS\n"
        "start = time.process_time()\n"
        "for s in KINDS.values(): assert f'flows.stages.{s.name}.run' in identify(s.name, s.module, {}, {}).modules\n"
        "print(time.process_time() - start)\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "import flows.execution.work, flows.runs.lookup, flows.runs.transfer, flows.executors.inline\n"
        "assert not {'torch', 'numpy', 'mlflow', 'ray'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.0


def test_a_second_look_is_free() -> None:
    identify("sample", KINDS["sample"].module, {}, {})
    start = time.process_time()
    identify("sample", KINDS["sample"].module, {}, {})
    assert time.process_time() - start < 0.1
