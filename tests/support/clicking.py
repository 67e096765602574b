"""A page of a server in Chromium, used as a person would: wait, click, type, give a file, drag the mouse."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.chromium import Chromium, Seen


class Visit:
    """One open page. `seen` fills while messages are read."""

    def __init__(self, browser: Chromium, url: str, width: int) -> None:
        self.browser, self.url, self.seen = browser, url, Seen(width=width)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        return self.browser.evaluate(script)

    def wait(self, script: str, seconds: float = 60) -> Any:
        """The value of the expression as soon as it is truthy."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never became true: {script}"
            time.sleep(0.1)
        return value

    def tab(self, name: str) -> None:
        """Open the tab of this name."""
        self._click("[role=tab]", name)

    def button(self, name: str) -> None:
        """Click the visible button of this name."""
        self._click("button", name)

    def _click(self, kind: str, name: str) -> None:
        named = f"e => e.textContent.trim() === {json.dumps(name)} && e.offsetParent"
        found = f"[...document.querySelectorAll({json.dumps(kind)})].find({named})"
        self.wait(f"!!{found}")
        self.run(f"{found}.click()")

    def give(self, path: Path, nth: int = 0) -> None:
        """Give a file to the nth visible place for one."""
        script = (
            "[...document.querySelectorAll('input[type=file]')].filter(e => e.closest('[role=tabpanel]').offsetParent)"
            f"[{nth}]"
        )
        self.wait(f"!!({script})")
        found = self.browser.call("Runtime.evaluate", expression=script)["result"]["objectId"]
        self.browser.call("DOM.setFileInputFiles", files=[str(path.absolute())], objectId=found)

    def drag(self, x: float, y: float, to_x: float, to_y: float, steps: int = 12) -> None:
        """Press the mouse, move it and let it go."""
        mouse: dict[str, Any] = {"button": "left", "buttons": 1, "clickCount": 1}
        self.browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.browser.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **mouse)
        for i in range(1, steps + 1):
            at = {"x": x + (to_x - x) * i / steps, "y": y + (to_y - y) * i / steps}
            self.browser.call("Input.dispatchMouseEvent", type="mouseMoved", **at, **mouse)
            time.sleep(0.02)
        self.browser.call("Input.dispatchMouseEvent", type="mouseReleased", x=to_x, y=to_y, **mouse)

    def shot(self, path: Path) -> None:
        self.browser.shoot(path)


@contextlib.contextmanager
def visit(browser: Chromium, url: str, *, width: int = 1280, height: int = 900) -> Iterator[Visit]:
    """Open the page; close it with the block, when `seen` is whole."""
    with browser.opened(width=width, height=height):
        page = Visit(browser, url, width)
        browser.call("Page.navigate", url=url)
        browser.wait("Page.loadEventFired")
        yield page
        browser.listen(page.seen, url)
