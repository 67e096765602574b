"""What a branch may hold: params, pictures' list, code to compare with; nothing that DVC, git or `rcg` would obey.

Whoever may push a branch decides what is trained, not what runs here. dvc.yaml is written by this installation.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from components.errors import ConfigError
from flows.identity.fingerprint import LOCK
from flows.pipeline.plan import FILE as PLAN
from flows.retrain.checkout import Checkout
from flows.yaml_files import parse_yaml

_WRITTEN = ("params.yaml", LOCK, PLAN, "dvc.lock", ".dvcignore", ".dvc", ".rcg", ".gitattributes", "artifacts")
_LINK, _SUBMODULE = "120000", "160000"
_SECTION = re.compile(r"""\[(?:(core|cache)|'(remote) "[\w.-]+"')\]""")
_SETTING = re.compile(r"""(\w+)\s*=\s*(?:[^'"\s#][^'"#]*|"[^'"]*"|)""")
_KEYS = {
    "core": {"analytics", "autostage", "check_update", "no_scm", "remote"},
    "cache": {"type"},
    "remote": {"connect_timeout", "endpointurl", "jobs", "read_timeout", "region", "url", "verify", "version_aware"},
}
"""Settings of DVC that name no command, no file with credentials and no code."""


class _Entry(NamedTuple):
    mode: str
    path: PurePosixPath


def check_branch(checkout: Checkout, commit: str) -> None:
    """Raises: ConfigError naming all that would be obeyed if the commit were checked out and reproduced."""
    found = list(_obeyed(checkout, commit))
    if found:
        raise ConfigError(
            f"commit {commit[:10]} holds what would run here, or lead elsewhere",
            got="; ".join(found),
            expected="params, code and a dvc.yaml that `rcg plan` writes",
            fix="take it out of the branch; what is of one machine belongs in .dvc/config.local, outside git",
        )


def _obeyed(checkout: Checkout, commit: str) -> Iterator[str]:
    for mode, path in _entries(checkout, commit):
        if mode == _SUBMODULE or path.name == ".gitmodules":
            yield f"{path}: a submodule"
        elif mode == _LINK and path.parts[0] in _WRITTEN:
            yield f"{path}: a link where files are written"
        elif path.parts[0] == ".rcg":
            yield f"{path}: settings and state of one machine"
        elif path.name == PLAN and len(path.parts) > 1:
            yield f"{path}: another pipeline"
        elif path.parts[0] == ".dvc":
            yield from _of_dvc(path, checkout.show(commit, str(path)) or b"")
        elif path.suffix == ".dvc" and not _is_plain(checkout.show(commit, str(path)) or b""):
            yield f"{path}: a stage of its own"
        elif path.name == ".gitattributes" and b"filter" in (checkout.show(commit, str(path)) or b""):
            yield f"{path}: a filter"


def _entries(checkout: Checkout, commit: str) -> Iterator[_Entry]:
    for entry in checkout.git("ls-tree", "-r", "-z", "--full-tree", commit).split("\0"):
        facts, _, path = entry.partition("\t")
        if path:
            yield _Entry(facts.split()[0], PurePosixPath(path))


def _of_dvc(path: PurePosixPath, data: bytes) -> Iterator[str]:
    if str(path) == ".dvc/config":
        yield from _of_config(data.decode(errors="replace"))
    elif str(path) != ".dvc/.gitignore":
        yield f"{path}: state of DVC"


def _of_config(text: str) -> Iterator[str]:
    """Lines that are not of a form that is known to be harmless, whoever parses them."""
    section = ""
    for line in map(str.strip, text.split("\n")):
        if not line or line.startswith("#"):
            continue
        head, setting = _SECTION.fullmatch(line), _SETTING.fullmatch(line)
        if head is not None:
            section = head[1] or head[2]
        elif setting is None or setting[1] not in _KEYS.get(section, ()):
            yield f".dvc/config: {line}"


def _is_plain(data: bytes) -> bool:
    """Whether a .dvc file only names data: neither a command nor where to import from."""
    try:
        content = parse_yaml(data, "a .dvc file")
    except ConfigError:
        return False
    return isinstance(content, dict) and content.keys() <= {"outs", "meta", "desc"}
