"""A web server and a proxy on 127.0.0.1, for tests."""

import contextlib
import select
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers import at_work

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class WebServer:
    """See `serving`.

    Attributes:
        host, port: of the server.
        answer: what a path is answered with: status, headers, body.
        put: what a PUT is answered with, by its path, headers and body.
        requests: method, target and headers in lower case, of each.
    """

    host: str
    answer: Callable[[str], Answer] = lambda path: (200, {}, b"pixels")
    put: Callable[[str, dict[str, str], bytes], Answer] = lambda path, headers, body: (405, {}, b"")
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://{self.host}:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        place: WebServer = self.server.place  # type: ignore[attr-defined]
        headers = {name.lower(): value for name, value in self.headers.items()}
        place.requests.append((self.command, self.path, headers))
        if self.command == "PUT":
            sent_body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, sent, body = place.put(self.path, headers, sent_body)
        else:
            status, sent, body = place.answer(self.path)
        self.send_response(status, sent.pop(":reason", None))
        for name, value in {**sent, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_GET  # noqa: N815

    def do_CONNECT(self) -> None:
        """A tunnel to this machine, whatever name is asked for."""
        place: WebServer = self.server.place  # type: ignore[attr-defined]
        headers = {name.lower(): value for name, value in self.headers.items()}
        place.requests.append((self.command, self.path, headers))
        status, sent, _ = place.answer(self.path)
        self.send_response(status, sent.pop(":reason", None))
        self.end_headers()
        self.close_connection = True
        if status != 200:
            return
        with socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as inner:
            ends = [self.connection, inner]
            with contextlib.suppress(OSError):
                while True:
                    for end in select.select(ends, [], [], 10)[0]:
                        data = end.recv(2**16)
                        if not data:
                            return
                        ends[end is ends[0]].sendall(data)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def serving(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    """A server that answers whatever its test says, also requests that are for others."""
    server = ThreadingHTTPServer((host, 0), _Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    place = WebServer(host, port=server.server_address[1])
    server.place = place  # type: ignore[attr-defined]
    with at_work(server):
        yield place
