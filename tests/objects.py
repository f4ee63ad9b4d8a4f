"""A server of objects on 127.0.0.1, such as Google's and Azure's are, for tests.

It is neither: it knows GET and HEAD of an object, ranges, refusals in the storage's words, and a
POST that hands out tokens.
"""

import json
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gazecore.images import azure, gcs
from tests.servers import at_work

ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}\nTime:{}</Message></Error>"
ACCOUNT = "museum"
ACCOUNT_KEY = "cGxhbnRlZC1zdG9yYWdlLWtleQ=="


@dataclass(frozen=True)
class Kind:
    """What differs between the storages.

    Attributes:
        scheme: of its URIs.
        root: what its paths begin with.
        words: see `FaultyProxy.words`.
        missing: code of a 404.
    """

    scheme: str
    root: str
    words: dict[str, tuple[int, str, str]]
    missing: str


GCS = Kind(
    "gs", "",
    {
        "slow_down": (429, "SlowDown", "Please reduce your request rate."),
        "expired": (401, "AuthenticationRequired", "Authentication required."),
        "denied": (403, "AccessDenied", "Access denied."),
    },
    "NoSuchKey",
)  # fmt: skip

AZURE = Kind(
    "az", f"/{ACCOUNT}",
    {
        "slow_down": (503, "ServerBusy", "The server is currently unable to receive requests."),
        "expired": (401, "InvalidAuthenticationInfo", "Server failed to authenticate."),
        "denied": (403, "AuthorizationPermissionMismatch", "This request is not authorized."),
        "unknown_keys": (403, "AuthenticationFailed", "Server failed to authenticate."),
    },
    "BlobNotFound",
)  # fmt: skip


@dataclass
class ObjectServer:
    """See `serving`.

    Attributes:
        url: of the server.
        objects: bucket and key to content.
        requests: method, path with its query, and headers in lower case, of each.
        tokens: how many were handed out.
        token_error: what the next request for a token is answered with: status and JSON.
        chunked: objects are sent without their length.
        refuse: may answer a request in the storage's place: status, code and message.
    """

    kind: Kind
    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    tokens: int = 0
    token_error: tuple[int, dict[str, str]] | None = None
    chunked: bool = False
    refuse: Callable[[dict[str, str]], tuple[int, str, str] | None] = lambda headers: None

    def environment(self, folder: Path, endpoint: str = "") -> dict[str, str]:
        """Variables that point at the server, or what stands before it, with planted keys."""
        endpoint = endpoint or self.url
        if self.kind is AZURE:
            parts = {
                "AccountName": ACCOUNT, "AccountKey": ACCOUNT_KEY,
                "BlobEndpoint": f"{endpoint}/{ACCOUNT}",
            }  # fmt: skip
            text = ";".join(f"{name}={value}" for name, value in parts.items())
            return {"AZURE_STORAGE_CONNECTION_STRING": text}
        path = folder / "account.json"
        path.write_text(json.dumps(service_account(f"{self.url}/token")))
        return {
            "STORAGE_EMULATOR_HOST": endpoint,
            "GOOGLE_APPLICATION_CREDENTIALS": str(path),
            "NO_GCE_CHECK": "true",
        }


def service_account(token_uri: str) -> dict[str, str]:
    """What a service account's file holds, with a key of its own."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return {
        "type": "service_account", "client_email": "gaze@museum.example", "token_uri": token_uri,
        "private_key_id": "1",
        "private_key": key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ).decode(),
    }  # fmt: skip


def forget_keys() -> None:
    """What was found in the environment is looked for again."""
    for found in (gcs.bucket, gcs.default_keys, azure.bucket, azure.find_account, azure.identity):
        found.cache_clear()  # type: ignore[attr-defined]


@contextmanager
def serving(kind: Kind) -> Iterator[ObjectServer]:
    """A server with no objects."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    place = ObjectServer(kind, f"http://127.0.0.1:{server.server_address[1]}")
    server.place = place  # type: ignore[attr-defined]
    with at_work(server):
        yield place


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        place: ObjectServer = self.server.place  # type: ignore[attr-defined]
        headers = {name.lower(): value for name, value in self.headers.items()}
        place.requests.append((self.command, self.path, headers))
        if refused := place.refuse(headers):
            return self._refuse(*refused)
        path = urllib.parse.unquote(self.path.partition("?")[0])
        data = place.objects.get(path.removeprefix(place.kind.root + "/"))
        if data is None:
            return self._refuse(404, place.kind.missing, "The object does not exist.")
        sent = {"Last-Modified": "Fri, 27 Nov 2026 10:00:00 GMT", "ETag": '"1"'}
        status = 200
        if asked := headers.get("range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            sent["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            status, data = 206, data[int(first) : int(last) + 1]
        if place.chunked:
            sent["Transfer-Encoding"] = "chunked"
            return self._send(status, sent, b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
        return self._send(status, {**sent, "Content-Length": str(len(data))}, data)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        place: ObjectServer = self.server.place  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers["Content-Length"]))
        place.tokens += 1
        status, answer = place.token_error or (
            200, {"access_token": f"planted-token-{place.tokens}", "token_type": "Bearer"},
        )  # fmt: skip
        data = json.dumps({"expires_in": 3600, **answer} if status == 200 else answer).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        self._send(status, headers, data)

    def _refuse(self, status: int, code: str, message: str) -> None:
        count = len(self.server.place.requests)  # type: ignore[attr-defined]
        data = ERROR.format(code, message, count).encode()
        self._send(status, {"Content-Length": str(len(data))}, data)

    def _send(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass
