"""The pods' `ray`: Ray's own commands without Serve's, first on the PATH of both images."""

import subprocess
import sys
from typing import Any

import pytest

from tests.support.manifests import K8S


def ray(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command: list[Any] = [sys.executable, K8S / "ray", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_has_the_commands_that_kuberay_runs_and_no_serve() -> None:
    listed = ray("--help")
    assert listed.returncode == 0, listed.stderr
    commands = {line.split()[0] for line in listed.stdout.partition("Commands:")[2].splitlines() if line.strip()}
    assert {"start", "job", "stop"} <= commands
    assert "serve" not in commands
    assert "--address" in ray("health-check", "--help").stdout


@pytest.mark.parametrize("name", ["Dockerfile", "thin.Dockerfile"])
def test_both_images_find_it_first(name: str) -> None:
    text = (K8S / name).read_text()
    assert "WORKDIR /opt/rcg\n" in text
    assert "COPY k8s/ray bin/ray\n" in text
    assert "ENV PATH=/opt/rcg/bin:" in text
