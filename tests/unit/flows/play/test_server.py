"""Where the page listens, and what is missing."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from components.errors import ConfigError
from flows.play.server import application, listening


def _listen(host: str, port: int) -> None:
    with listening(host, port):
        pass


def test_a_port_in_use_and_an_address_of_another_machine_are_named() -> None:
    with listening("127.0.0.1", 0) as one:
        host, port = one.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(ConfigError, match=rf"the port is in use[\s\S]*127\.0\.0\.1:{port}[\s\S]*--port 0"):
            _listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"cannot be served there[\s\S]*192\.0\.2\.1:80"):
        _listen("192.0.2.1", 80)


def test_a_host_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConfigError, match=r"cannot be served there[\s\S]*nowhere:80[\s\S]*--host"):
        _listen("nowhere", 80)


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match=r"needs Gradio[\s\S]*\[play\]"):
        application(None, tmp_path)  # type: ignore[arg-type]
