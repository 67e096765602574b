"""A proxy in front of an S3 server that loses answers, forgets headers or answers for it."""

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["lose"] | tuple[int, str] | None
"""lose: the request is carried out, its answer never arrives. (status, code): refused without being carried out."""


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


@contextlib.contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """A proxy on a free port; its faults can be changed at any time."""
    proxy, address = FaultyProxy(), upstream.removeprefix("http://")

    class Handling(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(self.command, self.path, dict(self.headers))
            proxy.seen.append(request)
            fault = next(filter(None, (fault(request) for fault in proxy.faults)), None)
            if isinstance(fault, tuple):
                status, code = fault
                text = f"<Error><Code>{code}</Code><Message>made up</Message></Error>".encode()
                self.answer(status, [], b"" if self.command == "HEAD" else text)
                return
            status, headers, data = self.carry_out(body)
            if fault == "lose":
                self.close_connection = True
                self.connection.close()
                return
            self.answer(status, headers, data)

        def carry_out(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            dropped = proxy.forget | {"connection", "expect"}
            headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
            connection = http.client.HTTPConnection(address)
            try:
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                connection.close()

        def answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
            self.send_response_only(status)
            length = next((v for k, v in headers if k.lower() == "content-length"), str(len(data)))
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    for method in ("GET", "PUT", "HEAD", "POST", "DELETE"):
        setattr(Handling, f"do_{method}", Handling.do)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handling) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
