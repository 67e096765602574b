"""A proxy in front of an S3 server that loses answers, forgets headers or answers for it; with TLS or not."""

import contextlib
import http.client
import ssl
import threading
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["lose", "cut"] | tuple[int, str] | None
"""The request is carried out, but its answer is lost or cut in the middle; or (status, code): it is refused."""


@dataclass
class FaultyProxy:
    """`faults` decide about each request, the first that is not None; `forget` names headers that never arrive."""

    endpoint: str = ""
    faults: list[Callable[["Request"], Fault]] = field(default_factory=list)
    forget: set[str] = field(default_factory=set)
    seen: list["Request"] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """One request as it came; `query` is in `path`."""

    method: str
    path: str
    headers: MutableMapping[str, str]


def once(wanted: Callable[[Request], bool], fault: Fault, times: int = 1) -> Callable[[Request], Fault]:
    """The fault for the first `times` requests that are wanted."""
    left = iter(range(times))
    return lambda request: fault if wanted(request) and next(left, None) is not None else None


class _Handling(BaseHTTPRequestHandler):
    """One connection; `proxy` and `upstream` are set by the subclass that faulty_proxy() makes."""

    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy
    upstream: str

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, dict(self.headers))
        self.proxy.seen.append(request)
        fault = next(filter(None, (fault(request) for fault in self.proxy.faults)), None)
        if isinstance(fault, tuple):
            status, code = fault
            text = f"<Error><Code>{code}</Code><Message>made up</Message></Error>".encode()
            self.answer(status, [], b"" if self.command == "HEAD" else text)
            return
        status, headers, data = self.carry_out(body)
        if fault is None:
            self.answer(status, headers, data)
            return
        if fault == "cut":
            self.answer(status, headers, data[: len(data) // 2], len(data))
        self.close_connection = True
        self.connection.close()

    def carry_out(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        dropped = self.proxy.forget | {"connection", "expect"}
        headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
        connection = http.client.HTTPConnection(self.upstream)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def answer(self, status: int, headers: list[tuple[str, str]], data: bytes, announced: int | None = None) -> None:
        self.send_response_only(status)
        length = str(len(data) if announced is None else announced)
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return


for _method in ("GET", "PUT", "HEAD", "POST", "DELETE"):
    setattr(_Handling, f"do_{_method}", _Handling.do)


@contextlib.contextmanager
def faulty_proxy(upstream: str, tls: ssl.SSLContext | None = None) -> Iterator[FaultyProxy]:
    """A proxy on a free port; its faults can be changed at any time."""
    proxy = FaultyProxy()
    members = {"proxy": proxy, "upstream": upstream.removeprefix("http://")}
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handling", (_Handling,), members)) as server:
        server.daemon_threads = True
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        proxy.endpoint = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
