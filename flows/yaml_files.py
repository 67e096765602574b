"""YAML that people write: read with limits, so that whatever is in the file, they get plain values or an error."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.documents import MAX_DEPTH, holds_conflict, plain_fault, read_bytes
from components.errors import ConfigError, RcgError

MAX_BYTES = 2**20
MAX_VALUES = 200_000
"""Values of one document, each alias counted as often as it stands for something."""


def parse_yaml(text: str | bytes, where: str, error: type[RcgError] = ConfigError, *, fix: str | None = None) -> Any:
    """Plain values; a key stands once in a mapping. Raises: `error` naming `where` and the place, for anything else."""
    data = text.encode(errors="replace") if isinstance(text, str) else text
    if len(text) > MAX_BYTES:
        raise error(f"{where} is too large to be read", got=f"{len(text)} bytes", expected=f"at most {MAX_BYTES}")
    try:
        value = yaml.load(text, _Loader)
    except RecursionError as cause:
        raise error(f"{where} is not valid YAML", got="values too deep inside each other", fix=fix) from cause
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, OverflowError) as cause:
        if holds_conflict(data):
            raise error(f"{where} holds the conflict of a git merge", got=cause, fix="resolve it") from cause
        raise error(f"{where} is not valid YAML", got=cause, fix=fix) from cause  # e.g. `!!int 1e99` is a ValueError
    fault = plain_fault(value)
    if fault is not None:
        raise error(f"{where} holds what no document of ours holds", got=fault, fix=fix)
    return value


def read_yaml(path: Path, error: type[RcgError] = ConfigError, *, fix: str | None = None) -> Any:
    """The same of a file."""
    return parse_yaml(read_bytes(path, error, limit=MAX_BYTES, fix=fix), str(path), error, fix=fix)


def yaml_text(sections: Mapping[str, Any]) -> str:
    """Plain sections as a person would write them: one after the other, short values in one line, no aliases."""
    plain: dict[str, Any] = json.loads(json.dumps(sections))
    parts = [
        yaml.safe_dump({name: value}, sort_keys=False, default_flow_style=None, width=110)
        for name, value in plain.items()
    ]
    return "\n".join(parts)


_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML's own rule, which PyYAML does not enforce: a key may stand once in a mapping. And no bombs."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _count(node, {}, 0)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value if key.tag != _MERGE]
        twice = sorted({str(k) for k in keys if isinstance(k, str) and keys.count(k) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"a key stands twice: {', '.join(twice)}; keep one of them", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _count(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Values below a node, itself included. Raises: YAMLError for too many, also by aliases, or too deep ones."""
    if id(node) in known:
        return known[id(node)]
    if depth > 2 * MAX_DEPTH:
        raise yaml.composer.ComposerError(None, None, "values are too deep inside each other", node.start_mark)
    n = 1
    if isinstance(node, yaml.CollectionNode):
        below = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        n += sum(_count(part, known, depth + 1) for part in below)
    if n > MAX_VALUES:
        raise yaml.composer.ComposerError(None, None, f"it stands for more than {MAX_VALUES} values", node.start_mark)
    known[id(node)] = n
    return n
