"""Servers of the web are told who asks, what they may ask for, and are not asked too often."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

import gazecore
import gazecore.images.fetch
import gazecore.web
from gazecore import courtesy
from gazecore.courtesy import WebOptions, asked_pause, headers_for, parse_headers
from gazecore.errors import (
    AccessDenied,
    ImageError,
    InputError,
    NotFound,
    StorageError,
    StorageUnavailable,
)
from gazecore.images.fetch import fetch, object_size
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.results.settings import ScoringOptions
from tests.web import WebServer, serving


@pytest.fixture
def site() -> Iterator[WebServer]:
    with serving() as server:
        yield server


@pytest.fixture
def other() -> Iterator[WebServer]:
    """Another host, of which a redirect may tell."""
    with serving("127.0.0.2") as server:
        yield server


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(courtesy, "turns", courtesy.Turns())
    yield
    courtesy.use(WebOptions())


def read(uri: str) -> bytes:
    return fetch(uri, None, Limits())


def told(*headers: str, rate: float | None = None) -> None:
    courtesy.use(WebOptions(parse_headers(headers), rate))


def test_who_asks_is_said_and_can_be_said_better(site: WebServer) -> None:
    read(f"{site.url}/a.jpg")
    told("User-Agent: museum/1 (curator@museum.example)")
    read(f"{site.url}/a.jpg")
    agents = [headers["user-agent"] for _, _, headers in site.requests]
    assert agents == [f"gazecore/{gazecore.__version__}", "museum/1 (curator@museum.example)"]


def test_headers_are_of_every_request(site: WebServer) -> None:
    told("Authorization: Bearer planted", "X-Empty:", "127.0.0.1 X-Here: 1", "h.example X-There: 1")
    read(f"{site.url}/a.jpg")
    assert object_size(f"{site.url}/a.jpg") == 6
    site.answer = lambda path: (200, {}, b"uri\na.jpg\n")
    list(list_images(f"{site.url}/list.csv"))
    assert {method for method, _, _ in site.requests} == {"GET", "HEAD"}
    for _, _, headers in site.requests:
        assert (headers["authorization"], headers["x-empty"]) == ("Bearer planted", "")
        assert headers["x-here"] == "1"
        assert "x-there" not in headers


def test_a_redirect_to_another_host_takes_no_secret_along(
    site: WebServer, other: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazecore.web, "check_address", lambda *_: None)  # they are on this machine
    told("X-Key: planted", "Cookie: a=planted", "User-Agent: me", "Authorization: planted")
    to = {"/moved": "/a.jpg", "/away": f"{other.url}/back", "/back": f"{site.url}/a.jpg"}
    other.answer = site.answer = lambda path: (
        (302, {"Location": to[path]}, b"") if path in to else (200, {}, b"x")
    )
    assert read(f"{site.url}/moved") == read(f"{site.url}/away") == b"x"
    assert len(site.requests) == 4
    for server in (site, other):
        for _, _, headers in server.requests:
            secrets = {headers.get(name) for name in ("x-key", "authorization")}
            assert secrets == ({"planted"} if server is site else {None})
            assert headers.get("cookie") == ("a=planted" if server is site else None)
            assert headers["user-agent"] == "me"


ASKED = "http://h.example/a"


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        (ASKED, True), ("http://h.example/b", True), ("https://h.example/a", True),
        ("http://other.example/a", False), ("http://sub.h.example/a", False),
        ("http://h.example:8080/a", False), ("https://h.example:8443/a", False),
    ],
)  # fmt: skip
def test_where_headers_go(url: str, secret: bool) -> None:
    told("X-Key: planted", "User-Agent: me")
    sent = dict(headers_for(URL(url), URL(ASKED)))
    assert sent == {"User-Agent": "me", **({"X-Key": "planted"} if secret else {})}


def test_no_header_goes_from_https_to_http() -> None:
    told("X-Key: planted")
    assert not dict(headers_for(URL("http://h.example/a"), URL("https://h.example/a")))


@pytest.mark.parametrize(
    "text",
    ["planted", "a planted value: x", "Na(me: planted", "X: plan\nted", ": planted", "@none"],
)
def test_what_is_no_header_is_refused_without_its_value(text: str) -> None:
    with pytest.raises(InputError, match=r"--header 2|none") as caught:
        ScoringOptions(header=("A: b", text))
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("name", ["Range", "host", "Accept-Encoding"])
def test_what_reading_needs_cannot_be_chosen(name: str) -> None:
    with pytest.raises(InputError, match=name):
        ScoringOptions(header=(f"{name}: x",))


def test_headers_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text("X-Key: planted\n\nh.example X-Other: é\n")
    found = [(h.host, h.name, h.value) for h in parse_headers([f"@{path}", "A:b"])]
    assert found == [("", "X-Key", "planted"), ("h.example", "X-Other", "é"), ("", "A", "b")]
    path.write_text("planted\n")
    with pytest.raises(InputError, match="headers") as caught:
        parse_headers([f"@{path}"])
    assert "planted" not in str(caught.value)


def test_no_value_is_shown(site: WebServer) -> None:
    options = ScoringOptions(header=("Authorization: Bearer planted-key",))
    assert "planted" not in f"{options}{options.web()}"
    courtesy.use(options.web())
    site.answer = lambda path: (403, {":reason": "no entry for planted-key"}, b"")
    with pytest.raises(AccessDenied, match=r"403 no entry for \*\*\*"):
        read(f"{site.url}/a.jpg")


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_is_a_number(rate: float) -> None:
    with pytest.raises(InputError, match="--rate-per-host"):
        ScoringOptions(rate_per_host=rate)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, StorageError), (401, AccessDenied), (402, StorageError), (403, AccessDenied),
        (404, NotFound), (405, StorageError), (406, StorageError), (410, NotFound),
        (418, StorageError), (451, StorageError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("query", ["", "?X-Amz-Signature=planted", "?" + "x" * 400])
def test_a_failed_row_names_the_status(
    site: WebServer, status: int, kind: type[ImageError], query: str
) -> None:
    site.answer = lambda path: (status, {}, b"")
    for ask in (read, object_size):
        with pytest.raises(kind, match=f"the server answers {status} ") as caught:
            ask(f"{site.url}/a.tar{query}")
        assert type(caught.value) is kind
    with pytest.raises(InputError, match=rf"cannot list .*{status}"):
        list(list_images(f"{site.url}/list.csv"))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0), ({"Retry-After": ""}, 0), ({"Retry-After": "soon"}, 0), ({"Retry-After": "-5"}, 0),
        ({"Retry-After": " 7 "}, 7), ({"Retry-After": "9" * 5000}, float("inf")),
        ({"Retry-After": "Mon, 30 Nov 2026 10:00:30 GMT", "Date": "Mon, 30 Nov 2026 10:00:00 GMT"},
         30),
        ({"Retry-After": "Mon, 30 Nov 2026 10:00:00 GMT", "Date": "Mon, 30 Nov 2026 10:00:30 GMT"},
         0),
    ],
)  # fmt: skip
def test_what_a_retry_after_asks_for(headers: dict[str, str], seconds: float) -> None:
    assert asked_pause(headers) == seconds


def test_a_date_is_by_our_clock_where_the_server_has_none() -> None:
    pause = asked_pause({"Retry-After": formatdate(time.time() + 60, usegmt=True)})
    assert 50 < pause <= 60


def refusing(times: int, status: int, headers: dict[str, str]) -> Any:
    left = [times]

    def answer(path: str) -> Any:
        left[0] -= 1
        return (status, dict(headers), b"") if left[0] >= 0 else (200, {}, b"pixels")

    return answer


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_that_asks_for_a_pause_gets_it(site: WebServer, status: int, form: str) -> None:
    when = "2" if form == "seconds" else formatdate(time.time() + 3, usegmt=True)
    site.answer = refusing(1, status, {"Retry-After": when})
    started = time.monotonic()
    assert read(f"{site.url}/a.jpg") == b"pixels"
    assert 1.5 < time.monotonic() - started < 6
    assert len(site.requests) == 2


def test_all_that_ask_a_host_wait_when_it_asks_for_a_pause(site: WebServer) -> None:
    site.answer = refusing(1, 429, {"Retry-After": "2"})
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(read, f"{site.url}/a.jpg")
        while not courtesy.turns._held:
            time.sleep(0.01)
        started = time.monotonic()
        assert read(f"{site.url}/b.jpg") == b"pixels"
        assert time.monotonic() - started > 1.5
        assert first.result() == b"pixels"


def test_pauses_count_beside_the_time_that_trouble_is_waited_out(
    site: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazecore.images.fetch, "RETRY_SECONDS", 0.5)
    site.answer = refusing(2, 429, {"Retry-After": "1"})
    assert read(f"{site.url}/a.jpg") == b"pixels"


def test_a_pause_that_is_too_long_says_nothing_of_the_image(site: WebServer) -> None:
    site.answer = lambda path: (429, {"Retry-After": "3600"}, b"")
    started = time.monotonic()
    with pytest.raises(StorageUnavailable, match=r"429 .*127\.0\.0\.1 asks .* 3,600 s"):
        read(f"{site.url}/a.jpg")
    assert time.monotonic() - started < 5
    assert len(site.requests) == 1
    assert courtesy.turns.take("127.0.0.1") == 0  # nobody waits for an hour


@pytest.mark.parametrize("path", ["/a.jpg", "/moved"])
def test_a_host_is_asked_at_its_rate(site: WebServer, path: str) -> None:
    told(rate=5)
    times = []

    def answer(asked: str) -> Any:
        times.append(time.monotonic())
        return (302, {"Location": "/a.jpg"}, b"") if asked == "/moved" else (200, {}, b"pixels")

    site.answer = answer
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(read, [f"{site.url}{path}"] * 4)) == {b"pixels"}
    count = 4 if path == "/a.jpg" else 8
    assert len(times) == count
    assert max(times) - started < count / 5 + 10
    for number, when in enumerate(sorted(times)):
        assert when - started > number / 5 - 0.05


def test_hosts_have_their_turns_apart(site: WebServer, other: WebServer) -> None:
    told(rate=0.01)
    started = time.monotonic()
    assert read(f"{site.url}/a.jpg") == read(f"{other.url}/a.jpg") == b"pixels"
    assert time.monotonic() - started < 10


def test_what_is_remembered_of_hosts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy, "_MANY", 5)
    told(rate=1e6)
    turns = courtesy.Turns()
    for number in range(100):
        turns.take(f"h{number}")
        turns.hold(f"h{number}", 1e-9)
    assert len(turns._next) <= 7
    assert len(turns._held) <= 7
