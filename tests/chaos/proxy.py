"""A proxy on 127.0.0.1 before a server of objects: injects faults, from a seed, and counts them.

    with FaultyProxy("http://127.0.0.1:5000", seed=7, rates=Rates(slow_down=0.1)) as proxy:
        ...  # AWS_ENDPOINT_URL=proxy.url
    proxy.faults, proxy.requests

Whether a request meets a fault is decided by the seed, the request and how often it came before,
not by the order in which requests of several clients arrive.
"""

import http.client
import random
import socket
import struct
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>{}</Message></Error>'
S3_WORDS = {
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
    "expired": (403, "ExpiredToken", "The provided token has expired."),
    "denied": (403, "AccessDenied", "Access Denied"),
    "unknown_keys": (403, "InvalidAccessKeyId", "The key id does not exist here."),
}
"""How refusals are put: status, code and message."""

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@dataclass(frozen=True)
class Rates:
    """Shares of requests, 0 to 1, that meet each fault; at most one each.

    Attributes:
        slow_down: 503 SlowDown.
        reset: the connection is reset in the middle of the answer's body; where it has none (an
            upload), before the request was passed on, or after: the answer is lost.
        truncated: half of the body under a header that says its whole length, then an orderly end.
        shortened: half of the body under a header that says the half's length, whether or not a
            `Content-Range` tells the truth.
        latency: the answer comes one to three seconds late.
        expired: from then on every request is answered by 403 ExpiredToken, for `expired_seconds`.
    """

    slow_down: float = 0
    reset: float = 0
    truncated: float = 0
    shortened: float = 0
    latency: float = 0
    expired: float = 0


class FaultyProxy:
    """See the module. Use as a context manager.

    Attributes:
        url: what clients are to be pointed at.
        faults: how often each fault was injected, by its name in `Rates`.
        requests: how often each kind of request came (GET, PUT, HEAD, DELETE, POST, LIST).
        words: how refusals are put, by their names: S3's, unless another storage's are set.
        force: is called with method and unquoted path of each request; a fault that it names comes
            for certain. None leaves it to the rates.
        on_headers: is called with the headers of each request.
        before: is called with the same before a request is passed on; a test's own mischief (an
            object that vanishes, a listing that changes) goes here.
    """

    expired_seconds = 1.5

    def __init__(self, target: str, seed: int = 0, rates: Rates | None = None) -> None:
        """Prepare a proxy for the server at `target`, an http URL of this machine."""
        self.target = urllib.parse.urlsplit(target).netloc
        self.seed, self.rates = seed, rates or Rates()
        self.faults: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.words = S3_WORDS
        self.force: Callable[[str, str], str | None] = lambda method, path: None
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.on_headers: Callable[[dict[str, str]], None] = lambda headers: None
        self._times: Counter[tuple[str, str]] = Counter()
        self._expired_until = 0.0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def choose(self, method: str, path: str) -> tuple[str | None, random.Random]:
        """The fault that this request meets, if any, and the source of its details."""
        with self._lock:
            self.requests["LIST" if "list-type=" in path else method] += 1
            self._times[method, path] += 1
            rng = random.Random(f"{self.seed} {method} {path} {self._times[method, path]}")
            if forced := self.force(method, path):
                return forced, rng
            if time.monotonic() < self._expired_until:
                return "expired", rng
            draw = rng.random()
            for field in fields(Rates):
                draw -= getattr(self.rates, field.name)
                if draw < 0:
                    if field.name == "expired":
                        self._expired_until = time.monotonic() + self.expired_seconds
                    return field.name, rng
            return None, rng

    def count(self, fault: str) -> None:
        """Count a fault that was really injected."""
        with self._lock:
            self.faults[fault] += 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the client went away, as they do when they are killed
            self.close_connection = True

    def do_GET(self) -> None:
        proxy: FaultyProxy = self.server.proxy  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy.on_headers(dict(self.headers.items()))
        path, mark, query = self.path.partition("?")
        path = urllib.parse.unquote(path) + mark + query
        fault, rng = proxy.choose(self.command, path)
        if fault in proxy.words:
            proxy.count(fault)
            return self._refuse(*proxy.words[fault])
        if fault == "latency":
            proxy.count(fault)
            time.sleep(rng.uniform(1, 3))
        if fault == "reset" and body and rng.random() < 0.5:
            proxy.count(fault)
            return self._reset()
        proxy.before(self.command, path)
        status, headers, data = self._forward(proxy.target, body)
        half = len(data) // 2
        if fault == "reset":
            proxy.count(fault)
            if data:
                self._send(status, headers, len(data), data[:half])
            return self._reset()
        if fault in ("truncated", "shortened") and half and status < 300:
            proxy.count(fault)
            if fault == "shortened" and rng.random() < 0.5:
                headers = [pair for pair in headers if pair[0].lower() != "content-range"]
            self._send(status, headers, len(data) if fault == "truncated" else half, data[:half])
            self.close_connection = True
            return None
        return self._send(status, headers, len(data), data)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815

    def _forward(self, target: str, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(target, timeout=60)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            data = answer.read()
            kept = [pair for pair in answer.getheaders() if pair[0].lower() not in HOP_BY_HOP]
            if self.command == "HEAD":
                kept.append(("Content-Length", answer.getheader("Content-Length") or "0"))
            return answer.status, kept, data
        finally:
            connection.close()

    def _send(self, status: int, headers: list[tuple[str, str]], length: int, data: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD" and status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = b"" if self.command == "HEAD" else ERROR.format(code, message).encode()
        self._send(status, [("Content-Type", "application/xml")], len(body), body)

    def _reset(self) -> None:
        # Without lingering, closing sends RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        pass
