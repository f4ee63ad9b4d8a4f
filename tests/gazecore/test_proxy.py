"""The environment's proxy is asked for the web, and for nothing that is inside."""

import datetime
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp.connector
import pytest
import stamina
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from yarl import URL

import gazecore.web
from gazecore import courtesy
from gazecore.courtesy import WebOptions, parse_headers
from gazecore.errors import AccessDenied, InputError, KeysRefused, NotFound, StorageUnavailable
from gazecore.images.fetch import fetch, object_size
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.web import proxy_for
from tests.web import WebServer, serving


@pytest.fixture(autouse=True)
def no_other_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(gazecore.web, "_resolved", {})
    stamina.set_testing(True, attempts=2)
    yield
    stamina.set_testing(False)
    courtesy.use(WebOptions())


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What names resolve to here; of others nobody knows."""
    known = {"127.0.0.1": "127.0.0.1"}

    def resolve(host: str, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        family = socket.AF_INET6 if ":" in known[host] else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (known[host], port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


@pytest.fixture
def proxy(names: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    with serving() as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://gaze:planted-pass@127.0.0.1:{server.port}")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.port}")
        yield server


def read(uri: str) -> bytes:
    return fetch(uri, None, Limits())


def test_the_web_is_read_by_the_proxy(proxy: WebServer, names: dict[str, str]) -> None:
    names["public.example"] = "93.184.215.14"
    for host in ("images.example", "public.example", "93.184.215.14", "[2606:2800:21f:cb07::1]"):
        assert read(f"http://{host}/a.jpg") == b"pixels"
        assert object_size(f"http://{host}/a.jpg") == 6
        assert {path for _, path, _ in proxy.requests} == {f"http://{host}/a.jpg"}
        assert all(h["proxy-authorization"].startswith("Basic ") for _, _, h in proxy.requests)
        assert all(h["user-agent"].startswith("gazecore/") for _, _, h in proxy.requests)
        proxy.requests.clear()
    proxy.answer = lambda path: (200, {}, b"uri\na.jpg\n")
    (batch,) = list_images("http://images.example/list.csv")
    assert batch["uri"].to_pylist() == ["http://images.example/a.jpg"]


INNER = (
    "127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "0.0.0.0", "169.254.169.254",
    "100.64.0.1", "[::1]", "[fd00::1]", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:10.0.0.1]",
    "[64:ff9b::a00:1]", "[2002:a00:1::1]", "100.100.100.200",
)  # fmt: skip


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", INNER)
def test_no_proxy_is_asked_for_what_is_inside(
    proxy: WebServer, names: dict[str, str], host: str, scheme: str
) -> None:
    with pytest.raises(AccessDenied):
        read(f"{scheme}://{host}/a.jpg")
    names["nice.example"] = host.strip("[]")
    with pytest.raises(AccessDenied):
        read(f"{scheme}://nice.example/a.jpg")
    with pytest.raises(InputError):
        list(list_images(f"{scheme}://{host}/list.csv"))
    assert proxy.requests == []
    proxy.answer = lambda path: (302, {"Location": f"{scheme}://{host}/a.jpg"}, b"")
    with pytest.raises(AccessDenied):
        read("http://images.example/a.jpg")
    assert [path for _, path, _ in proxy.requests] == ["http://images.example/a.jpg"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.localhost", "metadata.google.internal", "printer.local", "intra", "a.corp."],
)
def test_names_of_private_networks_are_refused_where_they_do_not_resolve(
    proxy: WebServer, host: str
) -> None:
    with pytest.raises(AccessDenied, match="NO_PROXY"):
        read(f"http://{host}/a.jpg")
    assert proxy.requests == []


def test_a_number_that_is_an_address_is_refused(
    proxy: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    for host in ("2130706433", "0x7f.1", "127.1"):
        with pytest.raises(AccessDenied):
            read(f"http://{host}/a.jpg")
    assert proxy.requests == []


def test_names_that_resolve_slowly_are_left_to_the_proxy(
    proxy: WebServer, names: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazecore.web, "RESOLVE_SECONDS", 0.1)
    resolve, asked = socket.getaddrinfo, []

    def slow(host: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        time.sleep(0.5 if host.endswith(".example") else 0)
        return resolve(host, *args, **kwargs)

    names["images.example"] = "10.0.0.1"
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert read("http://images.example/a.jpg") == read("http://images.example/b.jpg") == b"pixels"
    assert asked.count("images.example") == 1  # a minute long


def test_what_no_proxy_names_is_read_without(
    proxy: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org, 127.0.0.0/8")
    with serving() as site:
        assert read(f"{site.url}/a.jpg") == b"pixels"
        assert len(site.requests) == 1
        assert "proxy-authorization" not in site.requests[0][2]
        # The guard of what is read directly is the same as ever.
        site.answer = lambda path: (302, {"Location": "http://127.0.0.2/a.jpg"}, b"")
        with pytest.raises(AccessDenied, match="redirects to 127"):
            read(f"{site.url}/b.jpg")
    assert proxy.requests == []


@pytest.mark.parametrize(
    ("no_proxy", "url", "asked"),
    [
        ("example.org", "http://a.example.org/", False),
        (".example.org", "http://b.example.org/", False),
        ("example.org", "http://example.com/", True), ("*", "http://example.com/", False),
        ("example.org:81", "http://example.org:81/", False),
        ("example.org:81", "http://example.org/", True),
        ("10.0.0.0/8,x", "http://10.1.2.3/", False), ("10.0.0.0/8", "http://11.1.2.3/", True),
        ("::1", "http://[::1]:80/", False), ("fd00::/8", "http://[fd00::1]/", False),
    ],
)  # fmt: skip
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, asked: bool) -> None:
    monkeypatch.setenv("http_proxy", "proxy.example:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert proxy_for(URL(url)) == (URL("http://proxy.example:3128") if asked else None, {})


@pytest.mark.parametrize("text", ["socks5://planted-user:planted@h:1", "http://", "http://h:x"])
def test_what_is_no_proxy_ends_the_command(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", text)
    for ask in (read, lambda uri: list(list_images(uri))):
        with pytest.raises(KeysRefused, match="HTTP_PROXY") as caught:
            ask("http://images.example/a.jpg")
        assert "planted" not in str(caught.value)


def test_a_proxy_that_has_no_host_ends_the_command(
    names: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://no-proxy.example:3128")
    with pytest.raises(KeysRefused, match=r"no host no-proxy\.example.*HTTP_PROXY"):
        read("http://images.example/a.jpg")


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (403, AccessDenied, "the proxy answers 403"), (407, KeysRefused, "407.*HTTP_PROXY=http"),
        (404, NotFound, "the proxy answers 404"),
        (502, StorageUnavailable, "the proxy answers 502"),
    ],
)  # fmt: skip
def test_a_tunnel_that_is_refused(
    proxy: WebServer, status: int, kind: type[Exception], message: str
) -> None:
    proxy.answer = lambda path: (status, {}, b"")
    courtesy.use(WebOptions(parse_headers(["X-Key: planted"])))
    with pytest.raises(kind, match=message):
        read("https://images.example/a.jpg")
    assert {path for _, path, _ in proxy.requests} == {"images.example:443"}
    assert all("x-key" not in headers for _, _, headers in proxy.requests)


def test_a_page_that_wants_to_know_who_asks_the_proxy_is_no_failed_row(proxy: WebServer) -> None:
    proxy.answer = lambda path: (407, {}, b"")
    with pytest.raises(StorageUnavailable, match=r"407.*HTTP_PROXY=http"):
        read("http://images.example/a.jpg")


def certificate(folder: Path, name: str) -> Path:
    """A key and a certificate that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "cert.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + made.public_bytes(Encoding.PEM)
    )
    return path


def test_https_goes_by_a_tunnel(
    proxy: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certificate(tmp_path, "images.example")
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(path)
    theirs = ssl.create_default_context(cafile=str(path))
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", theirs)
    courtesy.use(WebOptions(parse_headers(["X-Key: planted"])))
    with serving(tls=ours) as site:
        assert read(f"https://images.example:{site.port}/a.jpg") == b"pixels"
        assert [headers["x-key"] for _, _, headers in site.requests] == ["planted"]
    assert [(m, p) for m, p, _ in proxy.requests] == [("CONNECT", f"images.example:{site.port}")]
    assert "planted" not in str(proxy.requests)
