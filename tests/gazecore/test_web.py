"""What a URL may lead to: nothing link-local, and nothing private by a redirect."""

import ipaddress
import socket
import threading
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
import stamina

from gazecore.errors import (
    AccessDenied,
    ImageError,
    InputError,
    NotFound,
    StorageError,
    StorageUnavailable,
    TooLarge,
)
from gazecore.images.fetch import fetch
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.web import check_address


def _prefixed(prefix: str) -> Callable[[int], ipaddress.IPv6Address]:
    return lambda inner: ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | inner)


EMBEDDED: dict[str, Callable[[int], ipaddress.IPv6Address]] = {
    "mapped": _prefixed("::ffff:0:0"),
    "compatible": _prefixed("::"),
    "translated": _prefixed("::ffff:0:0:0"),
    "nat64": _prefixed("64:ff9b::"),
    "nat64-local": _prefixed("64:ff9b:1:fffe::"),
    "isatap": _prefixed("2a00::5efe:0:0"),
    "isatap-unique": _prefixed("2a00::200:5efe:0:0"),
    "6to4": lambda inner: ipaddress.IPv6Address(0x2002 << 112 | inner << 80),
    "teredo-client": lambda inner: ipaddress.IPv6Address(
        0x20010000 << 96 | 0x01020304 << 64 | (inner ^ 0xFFFFFFFF)
    ),
    "teredo-server": lambda inner: ipaddress.IPv6Address(
        0x20010000 << 96 | inner << 64 | 0x01020304
    ),
    "nat64-local-48": lambda inner: ipaddress.IPv6Address(
        0x0064FF9B0001 << 80 | (inner >> 16) << 64 | (inner & 0xFFFF) << 40
    ),
}
"""The schemes by which an IPv6 address leads to an IPv4 address."""


class Pages(BaseHTTPRequestHandler):
    """`/a.jpg`; `/to?URL` redirects; `/endless` never ends. Connections are kept."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []
    sent: ClassVar[int] = 0

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        Pages.asked.append(f"{self.server.server_address[0]!s} {self.path}")
        url = urlsplit(self.path)
        if url.path == "/missing.jpg":
            self.send_error(404)
            self.close_connection = True
        elif url.path in ("/to", "/loop"):
            self.send_response(302)
            to = "/loop" if url.path == "/loop" else parse_qs(url.query)["url"][0]
            self.send_header("Location", to)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif url.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while Pages.sent < 2**28:
                    Pages.sent += self.wfile.write(bytes(2**16))
            except OSError:
                pass
            self.close_connection = True
        else:
            body = b"uri\na.jpg\n" if url.path.endswith(".csv") else b"pixels"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def pages() -> Iterator[tuple[str, str]]:
    """Two web servers on this machine, as hosts of their own."""
    servers = [ThreadingHTTPServer((host, 0), Pages) for host in ("127.0.0.1", "127.0.0.2")]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    Pages.asked, Pages.sent = [], 0
    first, second = (f"http://{s.server_address[0]!s}:{s.server_address[1]}" for s in servers)
    yield first, second
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "path", ["/loop", "/to?url=file:///etc/passwd", "/to?url=ftp://127.0.0.1/a", "/to?url=data:,x"]
)
def test_redirects_that_lead_nowhere_are_final(pages: tuple[str, str], path: str) -> None:
    with pytest.raises(StorageError, match="it redirects"):
        read(pages[0] + path)
    assert len(Pages.asked) <= 12  # one attempt, as many redirects as it follows


def test_a_page_and_a_host_that_do_not_exist_are_said_in_a_sentence(
    pages: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotFound, match="there is no such page: the server answers 404"):
        read(f"{pages[0]}/missing.jpg")
    with pytest.raises(NotFound, match=r"there is no host no-such-host\.invalid"):
        read("https://no-such-host.invalid/a.jpg")
    assert capfd.readouterr() == ("", "")


def test_what_is_tried_again_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
    with stamina.set_testing(True, attempts=3), pytest.raises(StorageUnavailable):
        read(f"http://127.0.0.1:{address[1]}/a.jpg")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("inner", ["169.254.169.254", "100.100.100.200"])
@pytest.mark.parametrize("embed", EMBEDDED.values(), ids=EMBEDDED)
def test_an_address_inside_an_address_is_seen(embed: Any, inner: str) -> None:
    address = str(embed(int(ipaddress.IPv4Address(inner))))
    with pytest.raises(AccessDenied, match=inner):
        check_address(address, followed=False)


@pytest.mark.parametrize("inner", ["127.0.0.1", "10.0.0.1", "192.168.1.1"])
@pytest.mark.parametrize("embed", EMBEDDED.values(), ids=EMBEDDED)
def test_a_private_address_inside_an_address_is_no_end_of_a_redirect(
    embed: Any, inner: str
) -> None:
    address = str(embed(int(ipaddress.IPv4Address(inner))))
    check_address(address, followed=False)
    with pytest.raises(AccessDenied):
        check_address(address, followed=True)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with every address that is connected to."""
    made: list[str] = []
    connect = BaseSelectorEventLoop.sock_connect

    async def noted(loop: Any, sock: socket.socket, address: Any) -> None:
        made.append(address[0])
        await connect(loop, sock, address)

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", noted)
    return made


def read(uri: str) -> bytes:
    return fetch(uri, None, Limits())


def test_the_users_own_host_is_read_and_redirects_within_it(pages: tuple[str, str]) -> None:
    one, two = pages
    assert read(f"{one}/a.jpg") == read(f"{two}/a.jpg") == b"pixels"
    assert read(f"{one}/to?url=/a.jpg") == read(f"{one}/to?url={one}/to?url=/a.jpg") == b"pixels"


@pytest.mark.parametrize("reused", [False, True], ids=["new", "kept connection"])
def test_a_redirect_to_another_private_host_is_refused(
    pages: tuple[str, str], reused: bool
) -> None:
    one, two = pages
    if reused:
        assert read(f"{two}/a.jpg") == b"pixels"
    Pages.asked.clear()
    with pytest.raises(AccessDenied, match=r"redirects to 127\.0\.0\.2"):
        read(f"{one}/to?url={two}/secret")
    assert [asked.split()[0] for asked in Pages.asked] == ["127.0.0.1"]


METADATA = (
    "169.254.169.254", "169.254.170.2", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "100.100.100.200",
)  # fmt: skip


@pytest.mark.parametrize("host", METADATA)
def test_metadata_addresses_are_refused_before_anything_is_sent(
    pages: tuple[str, str], connected: list[str], host: str
) -> None:
    with pytest.raises(AccessDenied, match="metadata"):
        read(f"http://{host}/latest/meta-data")
    assert not connected
    with pytest.raises(AccessDenied, match="metadata"):
        read(f"{pages[0]}/to?url=http://{host}/latest/meta-data")
    assert connected == ["127.0.0.1"]
    with pytest.raises(InputError):
        list(list_images(f"http://{host}/list.csv"))
    assert connected == ["127.0.0.1"]


def test_an_address_that_is_written_as_a_number_is_refused(connected: list[str]) -> None:
    with pytest.raises(ImageError):
        read("http://2852039166/latest/meta-data")
    assert not connected


def test_a_name_that_resolves_to_a_metadata_address_is_refused(
    pages: tuple[str, str], connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*args: Any, **kwargs: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"169.254.169.25{i}", 80)) for i in (3, 4)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(AccessDenied, match="metadata"):
        read("http://images.example/a.jpg")
    assert not connected


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "127.0.0.1", "192.168.1.1", "::1", "fd00::1", "0.0.0.0"]
)
def test_private_addresses_are_for_those_who_name_them(address: str) -> None:
    check_address(address, followed=False)
    with pytest.raises(AccessDenied):
        check_address(address, followed=True)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07::1"])
def test_public_addresses_are_fine(address: str) -> None:
    check_address(address, followed=True)


def test_a_response_without_end_is_read_up_to_the_cap(pages: tuple[str, str]) -> None:
    with pytest.raises(TooLarge):
        fetch(f"{pages[0]}/endless", None, Limits(max_bytes=1000))
    assert Pages.sent < 2**26


def test_a_list_on_the_web_speaks_for_its_own_server(pages: tuple[str, str]) -> None:
    one = pages[0]
    (batch,) = list_images(f"{one}/list.csv?X-Amz-Signature=planted")
    assert batch["uri"].to_pylist() == [f"{one}/a.jpg"]
    assert read(batch["uri"][0].as_py()) == b"pixels"
