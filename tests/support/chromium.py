"""Debian's Chromium without a screen: loads a page and tells what a reader and a watcher of the network would see."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
)

# The browser reads its orders from descriptor 3 and answers on 4.
_WIRE = 'orders=$0 answers=$1; shift; exec "$@" 3<&"$orders" 4>&"$answers"'


@dataclass
class Seen:
    """What one page did. `requests` holds the addresses that it asked for, but its own and data: addresses."""

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    scroll_width: int = 0
    width: int = 0
    values: Any = None


class Chromium:
    """One browser; messages go through a pair of pipes."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._buffer, self._number = b"", 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []

    def look(
        self, page: Path, *, width: int, dark: bool = False, script: str = "null", shot: Path | None = None
    ) -> Seen:
        """Load the page in a window of that width; `script` is evaluated in it, `shot` gets a picture of all of it."""
        with self.opened(width=width, dark=dark):
            self.call("Page.navigate", url=page.absolute().as_uri())
            self.wait("Page.loadEventFired")
            seen = Seen(width=width, values=self.evaluate(script))
            seen.scroll_width = int(self.evaluate("document.documentElement.scrollWidth"))
            if shot is not None:
                self.shoot(shot)
            self.listen(seen, page.absolute().as_uri())
        return seen

    @contextlib.contextmanager
    def opened(self, *, width: int, height: int = 900, dark: bool = False) -> Iterator[None]:
        """A window, empty at first, that is closed with the block."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._events.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        try:
            yield
        finally:
            self._session = None
            self.call("Target.closeTarget", targetId=target)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def shoot(self, path: Path) -> None:
        """A picture of all of the page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def listen(self, seen: Seen, own: str) -> None:
        """Put down what the page asked for and complained of since it was opened."""
        for event in self._events:
            method, params = event["method"], event["params"]
            if method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                seen.requests += [url] if url != own and not url.startswith("data:") else []
            elif method == "Runtime.exceptionThrown":
                seen.complaints.append(params["exceptionDetails"]["text"])
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                seen.complaints.append(str(params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                seen.complaints.append(params["entry"]["text"])

    def call(self, method: str, **params: Any) -> Mapping[str, Any]:
        """The answer to an order of the DevTools protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: Mapping[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def wait(self, method: str) -> None:
        """Read until there was such an event."""
        while not any(event["method"] == method for event in self._events):
            self._events.append(self._read())

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser ended"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def browser() -> Iterator[Chromium]:
    """A browser with a profile of its own, ended with the block."""
    assert BINARY is not None
    to_browser, from_browser = os.pipe(), os.pipe()

    with tempfile.TemporaryDirectory(prefix="rcg-chromium-", ignore_cleanup_errors=True) as profile:
        ends = (to_browser[0], from_browser[1])
        command = ["bash", "-c", _WIRE, *map(str, ends), BINARY, *_FLAGS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(command, pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Chromium(to_browser[1], from_browser[0])
        finally:
            os.close(to_browser[1])
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(from_browser[0])
            time.sleep(0.2)
