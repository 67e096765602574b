"""Which modules a stage runs, found by reading sources: nothing is imported, imports inside functions count."""

import ast
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

PACKAGES = ("flows", "components")
DATA = (".html", ".css")
"""Files that travel with a package and count as its code: templates and style sheets."""
PLUMBING = ("flows", "components.store", "components.errors")
"""Never counted, nor what they import: they move bytes and words, and every byte is checked by its digest.

Stages are the exception below flows. flows.identity.artifact.SCHEMA versions what plumbing does to the bytes of
outputs.
"""
_STAGES = "flows.stages"
_ROOT = Path(__file__).parents[2]


def module_digests(module: str, root: Path = _ROOT) -> dict[str, str]:
    """Module -> digest of its code, for `module` and all that it imports, directly or not, from this repository.

    Comments, docstrings, blank lines and formatting do not count, templates beside an __init__.py do. importlib calls
    are not seen.
    """
    top = module.partition(".")[0]
    counted: dict[str, str] = {}
    waiting, seen = [module], {module}
    while waiting:
        name = waiting.pop()
        path = _source(name, root)
        if path is None:
            continue  # an attribute of a module: `from components.config import Config`
        counted[name], imported = _read(path.read_bytes(), name, path.name == "__init__.py")
        if path.name == "__init__.py":
            counted[name] = _with_data(counted[name], path.parent)
        found = {other for other in (*imported, *_parents(name)) if other not in seen and _counts(other, top)}
        waiting += found
        seen |= found
    return dict(sorted(counted.items()))


def _counts(name: str, top: str) -> bool:
    if _within(name, _STAGES):
        return True
    return name.partition(".")[0] in (*PACKAGES, top) and not any(_within(name, plumbing) for plumbing in PLUMBING)


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _parents(name: str) -> Iterator[str]:
    """Packages whose __init__ runs before the module does."""
    parts = name.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts)))


def _source(name: str, root: Path) -> Path | None:
    stem = root.joinpath(*name.split("."))
    for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
        if path.is_file():
            return path
    return None


def _with_data(digest: str, folder: Path) -> str:
    """The digest of a package whose folder holds data: as it was where there is none."""
    files = sorted(path for path in folder.iterdir() if path.suffix in DATA)
    if not files:
        return digest
    parts = [digest, *(f"{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files)]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


@lru_cache(maxsize=1024)
def _read(source: bytes, module: str, is_package: bool) -> tuple[str, frozenset[str]]:
    """(digest, names of modules that may be imported) of one source file."""
    tree = ast.parse(source, module)
    package = module if is_package else module.rpartition(".")[0]
    parts: list[str] = []
    statements: list[ast.Import | ast.ImportFrom] = []
    _spell(tree, parts, statements)
    imported: set[str] = set()
    for statement in statements:
        names = [alias.name for alias in statement.names]
        if isinstance(statement, ast.ImportFrom):
            base = _base(statement, package)
            names = [base, *(f"{base}.{name}" for name in names)]
        imported.update(names)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest(), frozenset(imported)


def _base(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join((*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])))


_SILENT_FIELDS = {"ctx", "kind", "type_comment", "type_ignores"}


def _spell(node: ast.AST, parts: list[str], imports: list[ast.Import | ast.ImportFrom]) -> None:
    """Append the code in `node`, the same under every Python: fields that are empty are left out.

    Import statements are collected on the way: a second walk over the tree would take as long as this one.
    """
    parts.append(type(node).__name__)
    if isinstance(node, ast.Import | ast.ImportFrom):
        imports.append(node)
    for field in node._fields:
        value = getattr(node, field, None)
        if value is None and not isinstance(node, ast.Constant):
            continue
        if field in _SILENT_FIELDS or value == []:
            continue
        parts.append(field)
        if isinstance(value, list):
            for item in value:
                if not _is_docstring(item):
                    _spell_value(item, parts, imports)
            parts.append("]")
        else:
            _spell_value(value, parts, imports)
    parts.append(")")


def _spell_value(value: object, parts: list[str], imports: list[ast.Import | ast.ImportFrom]) -> None:
    if isinstance(value, ast.AST):
        _spell(value, parts, imports)
    else:
        parts.append(f"{type(value).__name__}:{value!r}")


def _is_docstring(node: object) -> bool:
    """A string that stands alone: no code sees it but `help()` and the generated reference."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
