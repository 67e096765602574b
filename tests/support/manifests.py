"""Reading k8s/: the objects of its files, and the pod templates inside any object."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parents[2] / "k8s"
Object = dict[str, Any]


def objects(path: Path) -> list[Object]:
    """All objects of a YAML file."""
    return [found for found in yaml.safe_load_all(path.read_text()) if found]


def kubectl() -> str | None:
    """A kubectl, which brings kustomize: the test rig's or one on PATH."""
    cache = Path(os.environ.get("RCG_CLUSTER_CACHE", "/var/cache/rcg-cluster"))
    return shutil.which("kubectl", path=f"{cache / 'bin'}{os.pathsep}{os.environ['PATH']}")


def built(folder: str | Path) -> list[Object]:
    """The objects that a kustomization makes, e.g. of `overlays/local`, or of any folder by its whole path."""
    command = [str(kubectl()), "kustomize", str(K8S / folder)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [found for found in yaml.safe_load_all(text) if found]


def pod_specs(part: Any, where: str = "") -> Iterator[tuple[str, Object]]:
    """(path, pod spec) of everything in an object that becomes a pod."""
    if isinstance(part, dict):
        if isinstance(part.get("containers"), list):
            yield where, part
            return
        for name, value in part.items():
            yield from pod_specs(value, f"{where}.{name}")
    elif isinstance(part, list):
        for index, value in enumerate(part):
            yield from pod_specs(value, f"{where}[{index}]")
