"""HTTP connections that do not lead where a list of URLs has no business.

Checked is the address that is about to be connected to, whatever name resolved to it and however
many redirects led there, so that nothing can change between the check and the connection. Where the
environment names a proxy, it is the proxy that resolves names: what is known of them here is
checked before it is asked.
"""

import asyncio
import base64
import ipaddress
import re
import socket
import time
from contextlib import suppress
from contextvars import ContextVar
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import fsspec.asyn
from aiohttp.connector import Connection
from fsspec.implementations.http import HTTPFileSystem
from yarl import URL

from gazecore import courtesy
from gazecore.errors import AccessDenied, KeysRefused, StorageError

_METADATA = {
    ipaddress.ip_address(address)
    for address in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
}
"""Where clouds answer machines about themselves, other than at link-local addresses."""

_LAST = [
    ipaddress.ip_network(network)
    for network in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")
]
"""NAT64 (RFC 6052, and the local prefix of RFC 8215), IPv4-compatible and IPv4-translated addresses
(RFC 4291, RFC 2765): an IPv4 address is in their last 32 bits."""

_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")
_ISATAP = {0x00005EFE, 0x02005EFE}

_asked: ContextVar[URL | None] = ContextVar("_asked", default=None)
"""The URL that was asked for, before any redirect."""

_requests: ContextVar[int] = ContextVar("_requests", default=0)
"""How many have been made on the way from that."""

_followed: ContextVar[bool] = ContextVar("_followed", default=False)
"""Whether a redirect has led to another host than that."""


_proxied: ContextVar[bool] = ContextVar("_proxied", default=False)
"""Whether it is a proxy's address that is connected to, which the environment names."""

_INNER = (
    "on this machine or a private network, where no proxy is asked for anything: name its host in "
    "NO_PROXY if it can be read without"
)
_INNER_NAME = re.compile(
    r"^[^.]+$|\.(localhost|local|internal|home\.arpa|lan|intranet|corp)$", re.I
)
"""Names that only a private network knows (RFC 6761, 6762, 8375, and those never delegated)."""

RESOLVE_SECONDS = 2.0
"""How long a name is asked for before it is left to the proxy."""

_MANY = 10_000
_resolved: dict[str, tuple[float, list[str]]] = {}


def check_address(address: str, followed: bool, proxied: bool = False) -> None:
    """Refuse an address.

    Args:
        address: what a socket, or a proxy, is about to connect to, IPv4 or IPv6.
        followed: whether a redirect led there from another host.
        proxied: whether it is a proxy that connects.

    Raises:
        AccessDenied: it is link-local or a cloud's metadata service; or, at a redirect's end or
            behind a proxy, it is on this machine or on a private network.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner = _within(ip) if isinstance(ip, ipaddress.IPv6Address) else []
    places: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [ip, *inner]
    for place in places:
        if place.is_link_local or place in _METADATA:
            raise AccessDenied(
                f"{place} is a link-local or metadata address, from which nothing is read"
            )
    for place in places[1:] or [ip]:
        if proxied and not place.is_global:
            raise AccessDenied(f"{place} is {_INNER}")
        if followed and not place.is_global:
            raise AccessDenied(
                f"it redirects to {place}, which is on this machine or a private network: "
                "name the image's own URL"
            )


def _within(ip: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address may lead to, by any of the schemes that embed one."""
    number = int(ip)
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if number > 1 and any(ip in network for network in _LAST):  # :: and ::1 are themselves
        found.append(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    if ip in _NAT64_LOCAL:  # RFC 6052, 2.2: around the octet of zeros, for a prefix of 48 bits
        found.append(ipaddress.IPv4Address((number >> 48 & 0xFFFF0000) | (number >> 40 & 0xFFFF)))
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        found.append(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    return [place for place in found if place is not None]


def _checked_socket(info: Any) -> socket.socket:
    family, kind, protocol, _, address = info
    if not _proxied.get():
        check_address(str(address[0]), _followed.get())
    return socket.socket(family, kind, protocol)


def proxy_for(url: URL) -> tuple[URL | None, dict[str, str]]:
    """The proxy that the environment names for a URL, and the header that says who asks it.

    That is by `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` (names, of which each stands for those
    under it, too, addresses and networks; `*` for all), in capitals or not.

    Raises:
        KeysRefused: what it names is no proxy.
    """
    text, host = getproxies().get(url.scheme), url.host or ""
    if not text or proxy_bypass(f"{host}:{url.port}") or _is_in_networks(host):
        return None, {}
    with suppress(ValueError):
        proxy = URL(text if "://" in text else f"http://{text}")
        if proxy.scheme in ("http", "https") and proxy.host:
            login = f"{proxy.user}:{proxy.password or ''}".encode()
            bears = {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode()}"}
            return proxy.origin(), bears if proxy.user else {}
    raise KeysRefused(f"{url.scheme.upper()}_PROXY is to be http://HOST:PORT")


def _is_in_networks(host: str) -> bool:
    for text in getproxies().get("no", "").split(","):
        with suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(text.strip(), strict=False):
                return True
    return False


async def _check_behind_proxy(host: str) -> None:
    """Refuse a host that a proxy is to be asked for; raises AccessDenied as `check_address`.

    A name that does not resolve here is left to the proxy, unless no public one is like it.
    """
    try:
        addresses = [str(ipaddress.ip_address(host))]
    except ValueError:
        addresses = await _addresses(host)
        if not addresses and _INNER_NAME.search(host.rstrip(".")):
            raise AccessDenied(f"{host} is {_INNER}") from None
    for address in addresses:
        check_address(address, followed=False, proxied=True)


async def _addresses(name: str) -> list[str]:
    """What a name resolves to here, as it was up to a minute ago; nothing if that takes long."""
    now = time.monotonic()
    until, found = _resolved.get(name, (0.0, []))
    if until < now:
        ask = asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
        found = []
        with suppress(OSError, UnicodeError):
            found = [str(info[4][0]) for info in await asyncio.wait_for(ask, RESOLVE_SECONDS)]
        if len(_resolved) > _MANY:
            _resolved.clear()
        _resolved[name] = now + 60, found
    return found


class _Request(aiohttp.ClientRequest):
    """A request, or the one that a redirect leads to."""

    def __init__(self, method: str, url: URL, **named: Any) -> None:
        named["proxy"], who = proxy_for(url)
        named["proxy_headers"] = dict(who) if url.scheme == "https" else None
        super().__init__(method, url, **named)
        self.headers.update(courtesy.headers_for(url, _asked.get()))
        if url.scheme == "http":
            self.headers.update(who)


class _Connector(aiohttp.TCPConnector):
    """Checks new connections before they are made, and old ones before they are used again."""

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Connection:
        asked = _asked.get()
        _followed.set(asked is None or req.url.host != asked.host)
        if _requests.get():  # the first turn is waited for by whoever asks, without a timeout
            await asyncio.sleep(courtesy.turns.take(req.url.host))
        _requests.set(_requests.get() + 1)
        _proxied.set(req.proxy is not None)
        if req.proxy:
            return await self._connect_by_proxy(req, traces, timeout)
        connection = await super().connect(req, traces, timeout)
        try:
            peer = connection.transport.get_extra_info("peername") if connection.transport else None
            if peer is None:
                raise ConnectionResetError("the connection was lost")
            check_address(str(peer[0]), _followed.get())
        except (AccessDenied, ConnectionResetError):
            connection.close()
            raise
        return connection

    async def _connect_by_proxy(self, req: Any, traces: Any, timeout: Any) -> Connection:
        await _check_behind_proxy(req.url.host)
        try:
            return await super().connect(req, traces, timeout)
        except aiohttp.ClientConnectorDNSError as error:
            if error.errno not in (socket.EAI_NONAME, socket.EAI_NODATA):
                raise
            variable = f"{req.url.scheme.upper()}_PROXY"
            raise KeysRefused(f"there is no host {req.proxy.host}: is {variable} right?") from error


async def guarded_session(**kwargs: Any) -> aiohttp.ClientSession:
    """What fsspec makes its HTTP requests with."""

    async def remember(
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        params: aiohttp.TraceRequestStartParams,
    ) -> None:
        _asked.set(params.url)
        _requests.set(0)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(remember)
    # One address after the other: the race between several takes a refusal for an address that is
    # down.
    connector = _Connector(socket_factory=_checked_socket, happy_eyeballs_delay=None)
    return aiohttp.ClientSession(
        connector=connector,
        trace_configs=[trace],
        request_class=_Request,
        headers={"User-Agent": courtesy.USER_AGENT},
        **kwargs,
    )


def read_at_most(fs: HTTPFileSystem, url: str, end: int, start: int = 0) -> bytes:
    """The bytes of a response from `start` to `end`, whatever length the server makes it.

    Raises:
        StorageError: `start` is not the begin, and the server gives no parts of files.
        aiohttp.ClientResponseError: the server answers with another status than of success.
    """
    headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"} if start else {}

    async def read() -> bytes:
        session = await fs.set_session()
        data = bytearray()
        async with session.get(fs.encode_url(url), headers=headers) as response:
            response.raise_for_status()
            if start and response.status != HTTPStatus.PARTIAL_CONTENT:
                raise StorageError("its server gives no parts of files, as a container needs")
            most = end - start
            while len(data) < most and (chunk := await response.content.read(most - len(data))):
                data += chunk
        return bytes(data)

    found: bytes = fsspec.asyn.sync(fs.loop, read)
    return found
