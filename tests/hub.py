"""A server on this machine that answers as Hugging Face's hub does, with one dataset, `a/b`."""

import json
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers import at_work


class Hub(ThreadingHTTPServer):
    """Attributes: files: by their paths in the dataset; asked: requests, `GET /path`."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.asked = dict(files), list[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub(files: Mapping[str, bytes]) -> Iterator[Hub]:
    server = Hub(files)
    with at_work(server):
        yield server


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append(f"POST {self.path}")
        paths = urllib.parse.parse_qs(body).get("paths", [])
        self._json([self._entry(path) for path in paths if self._is_there(path)])

    def do_GET(self) -> None:
        self.server.asked.append(f"GET {self.path}")
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if path.startswith("/api/datasets/a/b/tree/main"):
            folder = path.removeprefix("/api/datasets/a/b/tree/main").strip("/")
            start = f"{folder}/" if folder else ""
            names = [n.removeprefix(start) for n in self.server.files if n.startswith(start)]
            children = dict.fromkeys(start + name.partition("/")[0] for name in names)
            self._json([self._entry(child) for child in children])
        elif path in ("/api/datasets/a/b", "/api/datasets/a/b/revision/main"):
            self._json({"id": "a/b", "sha": "c" * 40, "siblings": [], "tags": []})
        elif path.startswith("/datasets/a/b/resolve/main/"):
            self._file(path.removeprefix("/datasets/a/b/resolve/main/"))
        else:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def _is_there(self, path: str) -> bool:
        return any(n == path or n.startswith(f"{path}/") for n in self.server.files)

    def _entry(self, path: str) -> dict[str, Any]:
        if (data := self.server.files.get(path)) is None:
            return {"type": "directory", "path": path, "oid": "0" * 40}
        return {"type": "file", "path": path, "size": len(data), "oid": sha1(data).hexdigest()}

    def _file(self, name: str) -> None:
        if (data := self.server.files.get(name)) is None:
            self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        headers, status, whole = {}, 200, len(data)
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            data = data[int(first) : int(last) + 1 if last else None]
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(data) - 1}/{whole}"
            status = 206
        self._send(data, status, headers)

    def _json(self, value: Any, status: int = 200, headers: Mapping[str, str] = {}) -> None:
        self._send(
            json.dumps(value).encode(), status, {"Content-Type": "application/json", **headers}
        )

    def _send(self, data: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
