"""Serves the page: on one address, to one job at a time, with nothing asked of any other host."""

import contextlib
import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ConfigError
from flows.play.drawing import Artist

if TYPE_CHECKING:
    from fastapi import FastAPI

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; form-action 'self'; base-uri 'self'; frame-ancestors 'self'"
)
"""What the browser lets the page load: its own host, whatever a script in it may want."""


def application(artist: Artist, folder: Path) -> "FastAPI":
    """The page as a web application; files that it shows lie in `folder`, as do those that are uploaded.

    Raises: ConfigError without the extra.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
        from fastapi import FastAPI
    except ModuleNotFoundError as error:
        fix = "pip install '.[play]' in the checkout"
        raise ConfigError("the page needs Gradio, which is not installed", got=error, fix=fix) from error
    from flows.play.page import STYLE, build

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Policy)
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return gradio.mount_gradio_app(
        app,
        build(artist, folder / "made"),
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=True,
        max_file_size="64mb",
        theme=theme,
        css_paths=[STYLE],
        pwa=False,
        mcp_server=False,
    )


class _Policy:
    """Adds the content security policy to every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self._app(scope, receive, sent)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket on that address; port 0 is any free one. Raises: ConfigError when it cannot be had."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server = socket.create_server(address[:2], family=family)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        what = "the port is in use" if taken else "the page cannot be served there"
        fix = "--port 0 takes a free one" if taken else "--host 127.0.0.1, and a port above 1023"
        raise ConfigError(what, got=f"{host}:{port} ({error.strerror})", fix=fix) from error
    with server:
        yield server


def serve(artist: Artist, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the page until the process is interrupted; `on_ready` hears its address. Raises: ConfigError."""
    with listening(host, port) as server, tempfile.TemporaryDirectory(prefix="rcg-play-") as folder:
        app = application(artist, Path(folder))
        import uvicorn

        shown = f"[{host}]" if ":" in host else host
        on_ready(f"http://{shown}:{server.getsockname()[1]}")
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
        try:
            with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when it has ended
                uvicorn.Server(config).run(sockets=[server])
        finally:
            artist.close()
