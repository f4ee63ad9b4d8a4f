"""Images of gs:// and az://, by obstore and from the environment alone."""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec.config
import obstore
import pytest
import stamina
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

import gazecore.images.fetch
from gazecore.errors import (
    AccessDenied,
    Archived,
    KeysRefused,
    NotFound,
    StorageError,
    StorageUnavailable,
    TooLarge,
)
from gazecore.images import azure, gcs, objects
from gazecore.images.fetch import fetch
from gazecore.images.formats import Limits
from tests.chaos.proxy import FaultyProxy
from tests.objects import (
    ACCOUNT,
    ACCOUNT_KEY,
    AZURE,
    GCS,
    Kind,
    ObjectServer,
    forget_keys,
    service_account,
    serving,
)

ODD_KEYS = (
    "plain.jpg", "a b#[1]%.jpg", "a%20b", "a%2Fb", "a+b", "a?b=c&d", "ünï-日本.jpg", "a\\b",
    "~*'()", "a:b@c", "=", "a|b^c`d", "{a,b}", "https:x",
)  # fmt: skip

AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""That everybody's Azurite has, by its manual."""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No variables of who runs the tests, and retries at once."""
    for name in ("CONNECTION_STRING", "ACCOUNT_NAME", "ACCOUNT_KEY", "SAS_TOKEN", "ANON",
                 "CLIENT_ID", "CLIENT_SECRET", "TENANT_ID"):  # fmt: skip
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))  # where gcloud keeps its keys
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with stamina.set_testing(True, attempts=4, cap=True):
        yield


@pytest.fixture(params=[GCS, AZURE], ids=["gs", "az"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def server(kind: Kind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ObjectServer]:
    """With the environment that points at it."""
    with serving(kind) as server:
        server.objects["photos/a.jpg"] = b"pixels"
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield server


def uri(server: ObjectServer, key: str = "a.jpg") -> str:
    return f"{server.kind.scheme}://photos/{key}"


def test_every_key_is_that_object_and_no_other(server: ObjectServer) -> None:
    for key in ODD_KEYS:
        server.objects[f"photos/{key}"] = f"object {key}".encode()
    for key in ODD_KEYS:
        expected = f"object {key}".encode()
        assert fetch(uri(server, key), len(expected), Limits()) == expected, key
        other = "gcs" if server.kind is GCS else "abfss"
        assert fetch(f"{other}://photos/{key}", None, Limits()) == expected, key
    assert len(server.requests) == 2 * len(ODD_KEYS)


@pytest.mark.parametrize("key", ["a/", "/a", "a//b", "./a", "a/../b", "..", ""])
def test_keys_that_obstore_would_change_are_left_to_fsspec(
    server: ObjectServer, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or are read as they are."""
    left: list[str] = []

    class Kept(MemoryFileSystem):  # the class of the protocol is not always installed
        cachable = False

        def cat_file(self, path: str, **options: Any) -> bytes:
            left.append(path)
            return b"by fsspec"

        def info(self, path: str, **options: Any) -> dict[str, Any]:
            return {"size": 9}

    monkeypatch.setitem(_registry, server.kind.scheme, Kept)
    server.objects[f"photos/{key}"] = b"by server"
    server.objects["photos/a"] = server.objects["photos/b"] = b"of another"
    assert fetch(uri(server, key), 9, Limits()) == (b"by fsspec" if left else b"by server")


def test_what_is_empty_or_too_large_or_gone(server: ObjectServer) -> None:
    server.objects |= {"photos/empty": b"", "photos/exact": b"x" * 1000}
    server.objects["photos/larger"] = b"x" * 5001
    limits = Limits(max_bytes=1000)
    for size in (None, 0):
        assert fetch(uri(server, "empty"), size, limits) == b""
    for size in (None, 1000):
        assert fetch(uri(server, "exact"), size, limits) == b"x" * 1000
    server.requests.clear()
    with pytest.raises(TooLarge):
        fetch(uri(server, "larger"), 5001, limits)
    assert server.requests == []
    for size in (None, 900):  # grown since the plan
        with pytest.raises(TooLarge):
            fetch(uri(server, "larger"), size, limits)
    assert [r[2].get("range") for r in server.requests] == [None, "bytes=0-1000"] * 2
    server.requests.clear()
    with pytest.raises(NotFound, match=rf"there is no {uri(server, 'gone')}: .*404") as caught:
        fetch(uri(server, "gone"), None, limits)
    assert len(server.requests) == 1
    first = str(caught.value)  # goes into a row, which must be the same each time
    with pytest.raises(NotFound) as caught:
        fetch(uri(server, "gone"), None, limits)
    assert str(caught.value) == first


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((403, "AccessDenied", "no"), AccessDenied),
        ((400, "InvalidArgument", "no"), StorageError),
        ((409, "BlobArchived", "no"), Archived),
        ((410, "Gone", "no"), NotFound),
    ],
)
def test_final_answers_are_asked_for_once(
    server: ObjectServer, answer: tuple[int, str, str], error: type[Exception]
) -> None:
    server.refuse = lambda headers: answer
    with pytest.raises(error, match=f"{answer[0]} {answer[1]}: no") as caught:
        fetch(uri(server), 6, Limits())
    assert len(server.requests) == 1
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("status", [401, 408, 429, 500, 502, 503, 504])
def test_answers_that_may_pass_are_asked_for_again(server: ObjectServer, status: int) -> None:
    left = [(status, "Busy", "later")] * 3
    server.refuse = lambda headers: left.pop() if left else None
    assert fetch(uri(server), 6, Limits()) == b"pixels"
    assert len(server.requests) == 4
    server.refuse = lambda headers: (status, "Busy", "later")
    with pytest.raises(StorageUnavailable, match=f"{uri(server)}: OSError: .*{status} Busy"):
        fetch(uri(server), 6, Limits())
    assert len(server.requests) == 8  # a try is one request


@pytest.mark.parametrize("mode", ["refuses", "hangs"])
def test_a_storage_that_is_not_there(
    server: ObjectServer, mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(objects.client, "__defaults__", (0.3, 0.3))
    came = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for name, value in server.environment(tmp_path, endpoint).items():
            monkeypatch.setenv(name, value)
        if mode == "refuses":
            listener.close()
        with pytest.raises(StorageUnavailable, match=r"Connect|Timeout") as caught:
            fetch(uri(server), 6, Limits())
        assert ACCOUNT_KEY not in str(caught.value)
        if mode == "hangs":
            listener.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                while True:
                    listener.accept()[0].close()
                    came += 1
            assert came == 4


def test_the_budget_bounds_the_wait(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    stamina.set_testing(False)
    monkeypatch.setattr(gazecore.images.fetch, "RETRY_SECONDS", 0.3)
    server.refuse = lambda headers: (503, "Busy", "later")
    started = time.monotonic()
    with pytest.raises(StorageUnavailable):
        fetch(uri(server), 6, Limits())
    assert 0.3 <= time.monotonic() - started < 20


@pytest.mark.parametrize("fault", ["reset", "truncated", "shortened"])
def test_a_body_that_was_cut_is_read_again(
    server: ObjectServer, fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.objects["photos/a.jpg"] = b"pixels" * 1000
    with FaultyProxy(server.url) as proxy:
        for name, value in server.environment(tmp_path, proxy.url).items():
            monkeypatch.setenv(name, value)
        left = [fault] * 2
        proxy.force = lambda method, path: left.pop() if left and method == "GET" else None
        assert fetch(uri(server), 6000, Limits()) == b"pixels" * 1000
        assert proxy.faults[fault] == 2
        proxy.force = lambda method, path: fault if method == "GET" else None
        with pytest.raises(StorageUnavailable):
            fetch(uri(server), 6000, Limits())
        # One that became smaller is read as it is now.
        proxy.force = lambda method, path: None
        server.objects["photos/a.jpg"] = b"pixels"
        assert fetch(uri(server), 6000, Limits()) == b"pixels"


def test_many_readers_ask_for_keys_once(server: ObjectServer) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: fetch(uri(server), 6, Limits()), range(200)))
    # Who looks for the account at the same time may find it twice.
    assert server.tokens <= (16 if server.kind is GCS else 0)
    before = server.tokens
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: fetch(uri(server), 6, Limits()), range(200)))
    assert server.tokens == before


def test_keys_are_renewed_before_they_end_and_where_they_are_refused() -> None:
    ends: list[timedelta] = [timedelta(hours=1), timedelta(minutes=3), timedelta(hours=1)]
    made: list[int] = []

    def renew() -> tuple[dict[str, Any], datetime | None]:
        made.append(1)
        return {"token": f"{len(made)}"}, datetime.now(UTC) + ends[len(made) - 1]

    keys = objects.Keys(renew)
    assert [keys()["token"] for _ in range(3)] == ["1"] * 3
    keys.forget()
    assert [keys()["token"] for _ in range(3)] == ["2", "3", "3"]
    assert keys()["expires_at"] < datetime.now(UTC) + timedelta(minutes=10)


def test_google_credentials_sign_requests_and_are_renewed_when_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serving(GCS) as server:
        server.objects["photos/a.jpg"] = b"pixels"
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        fetch(uri(server), 6, Limits())
        assert server.requests[-1][2]["authorization"] == "Bearer planted-token-1"

        def refuse(headers: dict[str, str]) -> tuple[int, str, str] | None:
            old = headers["authorization"] == "Bearer planted-token-1"
            return (401, "AuthenticationRequired", "no") if old else None

        server.refuse = refuse
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: fetch(uri(server), 6, Limits()), range(32))) == {
                b"pixels"
            }
        assert server.tokens == 2


@pytest.mark.parametrize(
    ("status", "answer", "passes"),
    [
        (400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, False),
        (401, {"error": "invalid_client"}, False),
        (503, {"error": "temporarily_unavailable"}, True),
    ],
)
def test_an_account_that_google_does_not_know_ends_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    status: int,
    answer: dict[str, str],
    passes: bool,
) -> None:
    with serving(GCS) as server:
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        server.token_error = (status, answer)
        kind = StorageUnavailable if passes else KeysRefused
        started = time.monotonic()
        with stamina.set_testing(True, attempts=1), pytest.raises(kind) as caught:
            fetch(uri(server), 6, Limits())
        assert type(caught.value) is kind
        assert time.monotonic() - started < 20
        assert answer["error"] in str(caught.value) or passes
        assert len(str(caught.value).splitlines()) == 1
        assert server.requests == []


@pytest.mark.parametrize("content", [None, "", "{", '{"type": "nothing"}', "{}"])
def test_a_file_of_google_credentials_that_is_of_no_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(KeysRefused, match="GOOGLE_APPLICATION_CREDENTIALS names no") as caught:
        fetch("gs://photos/a.jpg", 6, Limits())
    assert len(str(caught.value).splitlines()) == 1


def test_a_private_key_is_in_no_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    account = service_account("http://127.0.0.1:9/token")
    account["private_key"] = account["private_key"][:-200]
    (tmp_path / "key.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(KeysRefused) as caught:
        fetch("gs://photos/a.jpg", 6, Limits())
    assert account["private_key"][60:100] not in str(caught.value)


def test_without_google_credentials_public_buckets_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(GCS) as server:
        server.objects["photos/a.jpg"] = b"pixels"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url.removeprefix("http://"))
        assert fetch(uri(server), 6, Limits()) == b"pixels"
        assert "authorization" not in server.requests[-1][2]
        # What is not public says that there are no keys.
        server.refuse = lambda headers: (401, "AuthenticationRequired", "Anonymous caller")
        with pytest.raises(KeysRefused, match=r"no keys for gs://photos/a\.jpg: set GOOGLE_APP"):
            fetch(uri(server), 6, Limits())
        # Who asked for no keys needs no such advice.
        monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        with pytest.raises(AccessDenied, match="401 AuthenticationRequired"):
            fetch(uri(server), 6, Limits())


@pytest.mark.parametrize(
    ("variables", "signed"),
    [
        ({"ACCOUNT_KEY": ACCOUNT_KEY}, f"SharedKey {ACCOUNT}:"),
        ({"ACCOUNT_KEY": ACCOUNT_KEY, "SAS_TOKEN": "sig=x"}, f"SharedKey {ACCOUNT}:"),
        ({"SAS_TOKEN": "?sv=2026&sig=planted%2Fsig%3D"}, "sv=2026&sig=planted%2Fsig%3D"),
        ({"SAS_TOKEN": "sv=2026&sig=planted%2Fsig%3D"}, "sv=2026&sig=planted%2Fsig%3D"),
        ({"ANON": "true"}, ""),
        ({"ANON": "1", "ACCOUNT_KEY": ACCOUNT_KEY}, f"SharedKey {ACCOUNT}:"),
    ],
)
def test_azures_variables_mean_what_they_mean_to_adlfs(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], signed: str
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    for name, value in variables.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
    account, endpoint, _ = azure.find_account(None)
    assert (account, endpoint) == (ACCOUNT, f"https://{ACCOUNT}.blob.core.windows.net")
    with serving(AZURE) as server:
        server.objects["photos/a.jpg"] = b"pixels"
        found = azure.find_account(None)
        monkeypatch.setattr(
            azure, "find_account", lambda named: (found[0], f"{server.url}/{ACCOUNT}", found[2])
        )
        assert fetch("az://photos/a.jpg", 6, Limits()) == b"pixels"
        _, path, headers = server.requests[-1]
        assert headers.get("authorization", path.partition("?")[2]).startswith(signed)
        assert bool(signed) == ("authorization" in headers or "?" in path)
        # And none of them is in a message.
        server.refuse = lambda headers: (403, "AuthenticationFailed", f"Signature of {path}")
        with pytest.raises(KeysRefused if signed else AccessDenied) as caught:
            fetch("az://photos/a.jpg", 6, Limits())
        assert "planted" not in str(caught.value)
        assert ACCOUNT_KEY not in str(caught.value)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"AccountName=a1b;AccountKey={ACCOUNT_KEY}", ("a1b", "https://a1b.blob.core.windows.net")),
        (f"AccountName=a1b;AccountKey={ACCOUNT_KEY};EndpointSuffix=core.chinacloudapi.cn;",
         ("a1b", "https://a1b.blob.core.chinacloudapi.cn")),
        ("BlobEndpoint=https://a1b.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=x",
         ("a1b", "https://a1b.blob.core.windows.net")),
        ("DefaultEndpointsProtocol=http;AccountName=a1b", ("a1b", "http://a1b.blob.core.windows.net")),
    ],
)  # fmt: skip
def test_connection_strings(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: tuple[str, str]
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    account, endpoint, keys = azure.find_account("another")
    assert (account, endpoint) == expected
    assert bool(keys) == ("Key" in text or "Signature" in text)
    if keys and "Signature" in text:
        assert keys()["sas_token"] == "sv=1&sig=x"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "no account of Azure is named: set AZURE_STORAGE_ACCOUNT_NAME"),
        ({"ACCOUNT_NAME": "museum", "ACCOUNT_KEY": "planted-not-base64!"}, "is no base64"),
        ({"CONNECTION_STRING": "planted-nonsense"}, "names no AccountName"),
        ({"CONNECTION_STRING": "AccountName=museum;AccountKey=planted!"}, "is no base64"),
        (
            {"ACCOUNT_NAME": "museum", "CLIENT_ID": "id", "CLIENT_SECRET": "planted-secret"},
            "_CLIENT_ID|no keys",
        ),
    ],
)
def test_azure_keys_that_are_of_no_use_end_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
    started = time.monotonic()
    with pytest.raises(KeysRefused, match=words) as caught:
        fetch("az://photos/a.jpg", 6, Limits())
    assert time.monotonic() - started < 20
    assert len(str(caught.value).splitlines()) == 1
    assert "planted" not in str(caught.value)


def test_the_key_of_one_account_is_not_used_at_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list could name one whose owner sees what it is asked with."""
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=x")
    with pytest.raises(AccessDenied, match=r"in the account stranger, .* none that AZURE_"):
        fetch("abfs://photos@stranger.dfs.core.windows.net/a.jpg", 6, Limits())
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    forget_keys()
    with pytest.raises(AccessDenied, match="in the account stranger"):
        fetch("abfs://photos@stranger.dfs.core.windows.net/a.jpg", 6, Limits())
    here = azure.find("abfs://photos@museum.dfs.core.windows.net/a.jpg")
    assert here
    assert here.key == "a.jpg"


def test_what_only_fsspec_can_do_is_left_to_it(
    server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme, find = server.kind.scheme, gcs.find if server.kind is GCS else azure.find
    assert find(uri(server))
    with monkeypatch.context() as patch:
        patch.setitem(fsspec.config.conf, scheme, {"requester_pays": True})
        assert find(uri(server)) is None
    if server.kind is GCS:
        monkeypatch.setenv("GOOGLE_API_USE_CLIENT_CERTIFICATE", "true")
        assert find(uri(server)) is None
    else:
        assert find("az://photos/a.jpg?versionid=2026-01-01") is None
        assert find("abfs://photos@museum.example/a.jpg") is None

    # An object of unknown length, as those that are stored compressed are.
    class Kept(MemoryFileSystem):
        cachable = False

        def cat_file(self, path: str, **options: Any) -> bytes:
            return b"by fsspec"

    monkeypatch.delenv("GOOGLE_API_USE_CLIENT_CERTIFICATE", raising=False)
    monkeypatch.setitem(_registry, scheme, Kept)
    server.chunked = True
    assert fetch(uri(server), 6, Limits()) == b"by fsspec"


def test_images_are_read_where_gcsfs_and_adlfs_are_not_installed(server: ObjectServer) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('gcsfs', 'adlfs', 'azure.identity')))\n"
        "from gazecore.images.fetch import fetch; from gazecore.images.formats import Limits\n"
        f"print(fetch({uri(server)!r}, 6, Limits()))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.stdout.strip() == "b'pixels'", ended.stderr


def make_container(endpoint: str) -> None:
    """Create Container, which obstore does not know, signed as Microsoft's manual says."""
    headers = {
        "x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06",
        "Content-Length": "0",
    }  # fmt: skip
    signed = "\n".join(f"{name}:{headers[name]}" for name in ("x-ms-date", "x-ms-version"))
    text = f"PUT{12 * chr(10)}{signed}\n/devstoreaccount1/devstoreaccount1/photos"
    digest = hmac.digest(
        base64.b64decode(AZURITE_KEY), f"{text}\nrestype:container".encode(), hashlib.sha256
    )
    headers["Authorization"] = f"SharedKey devstoreaccount1:{base64.b64encode(digest).decode()}"
    url = f"{endpoint}/photos?restype=container"
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)):
        pass


@pytest.mark.skipif(not shutil.which("azurite-blob"), reason="no azurite-blob here")
def test_azurite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Microsoft's own emulator, which checks signatures."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["azurite-blob", "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent",
         "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.2)
        endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            f"AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};BlobEndpoint={endpoint}",
        )
        found = azure.find("az://photos/x")
        assert found
        make_container(endpoint)
        for key in ODD_KEYS:
            found.bucket.ask("", lambda store, key=key: obstore.put(store, key, key.encode()))
        found.bucket.ask("", lambda store: obstore.put(store, "large", b"x" * 2000))
        for key in ODD_KEYS:
            assert fetch(f"az://photos/{key}", None, Limits()) == key.encode(), key
            assert fetch(f"abfs://photos/{key}", 1000, Limits()) == key.encode(), key
        with pytest.raises(TooLarge):
            fetch("az://photos/large", None, Limits(max_bytes=1000))
        with pytest.raises(NotFound, match="404 BlobNotFound"):
            fetch("az://photos/gone", None, Limits())
        with pytest.raises(NotFound, match="404 ContainerNotFound"):
            fetch("az://nothing/gone", None, Limits())
        forget_keys()
        wrong = base64.b64encode(b"another key").decode()
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            f"AccountName=devstoreaccount1;AccountKey={wrong};BlobEndpoint={endpoint}",
        )
        with pytest.raises(AccessDenied, match="403 AuthorizationFailure"):  # Azurite's own word
            fetch("az://photos/large", None, Limits())
    finally:
        process.terminate()
        process.wait(timeout=20)
