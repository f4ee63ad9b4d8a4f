"""What is gone for good is told apart from what may come back."""

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import fsspec
import pytest
import stamina
from botocore.exceptions import ClientError
from fsspec import AbstractFileSystem
from multidict import CIMultiDict, CIMultiDictProxy
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error
from yarl import URL

import gazecore.images.fetch
from gazecore.errors import (
    AccessDenied,
    Archived,
    ImageError,
    KeysRefused,
    NotFound,
    StorageError,
    StorageUnavailable,
    TooLarge,
)
from gazecore.images.fetch import fetch
from gazecore.images.formats import Limits


class Moody(AbstractFileSystem):
    """A storage with one object, which first raises the errors that a test asks for."""

    protocol = "moody"
    cachable = False
    content: ClassVar[bytes] = b""
    errors: ClassVar[list[Exception]] = []
    requests: ClassVar[int] = 0
    sent: ClassVar[int] = 0
    cuts: ClassVar[int] = 0

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        Moody.requests += 1
        if Moody.errors:
            raise Moody.errors.pop(0)
        data = Moody.content[start:end]
        if Moody.cuts:
            Moody.cuts -= 1
            return data[: len(data) // 2]
        Moody.sent += len(data)
        return data

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return {"name": path, "size": len(Moody.content), "type": "file"}


@pytest.fixture
def moody() -> Iterator[type[Moody]]:
    fsspec.register_implementation("moody", Moody, clobber=True)
    Moody.content, Moody.errors, Moody.requests, Moody.sent = b"pixels", [], 0, 0
    yield Moody
    Moody.errors, Moody.cuts = [], 0


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Retries as often as ever, but at once."""
    stamina.set_testing(True, attempts=10, cap=True)
    yield
    stamina.set_testing(False)


@pytest.mark.parametrize("planned", [True, False], ids=["size known", "size unknown"])
def test_a_file(tmp_path: Path, planned: bool) -> None:
    (tmp_path / "a b#[1]%.jpg").write_bytes(b"pixels")
    data = fetch(str(tmp_path / "a b#[1]%.jpg"), 6 if planned else None, Limits())
    assert data == b"pixels"


@pytest.mark.parametrize("size", [None, 6])
def test_a_missing_file(tmp_path: Path, size: int | None) -> None:
    for uri in (str(tmp_path / "nothing.jpg"), "memory://nothing/at/all.jpg"):
        with pytest.raises(NotFound) as caught:
            fetch(uri, size, Limits())
        assert caught.value.code == "not_found"


@pytest.mark.parametrize("size", [None, 6])
def test_a_directory_is_final(tmp_path: Path, size: int | None) -> None:
    with pytest.raises(StorageError):
        fetch(str(tmp_path), size, Limits())


def test_what_is_no_regular_file_is_final_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")  # a socket's path must be short
    for name in ("pipe.jpg", "link.jpg", "socket.jpg", "/dev/zero"):
        with pytest.raises(StorageError, match="not a regular file"):
            fetch(str(tmp_path / name), None, Limits())


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the opening."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "file.jpg").write_bytes(b"x")
    file, look = os.stat(tmp_path / "file.jpg"), os.stat
    pipe = str(tmp_path / "pipe.jpg")
    monkeypatch.setattr(os, "stat", lambda p, **k: file if p == pipe else look(p, **k))
    with pytest.raises(StorageError, match="not a regular file"):
        fetch(pipe, None, Limits())


@pytest.mark.parametrize(
    "word", [errno.ENXIO, errno.ENODEV, errno.EFBIG, errno.EBADF, errno.ENOTSUP]
)
def test_what_a_system_says_of_the_file_itself_is_final(moody: type[Moody], word: int) -> None:
    moody.errors = [OSError(word, os.strerror(word))] * 1000
    with pytest.raises(StorageError):
        fetch("moody://bucket/a.jpg", None, Limits())
    assert moody.requests == 1


def test_a_file_used_as_a_directory_is_final(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ImageError):
        fetch(str(tmp_path / "file" / "a.jpg"), None, Limits())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(AccessDenied):
        fetch(str(path), None, Limits())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError("Forbidden"), AccessDenied),
        (FileNotFoundError("The specified key does not exist."), NotFound),
        (OSError(errno.EISDIR, "Is a directory"), StorageError),
        (OSError(errno.ENAMETOOLONG, "File name too long"), StorageError),
    ],
)
@pytest.mark.parametrize("size", [None, 6])
def test_final_errors_are_not_retried(
    moody: type[Moody], error: Exception, kind: type[ImageError], size: int | None
) -> None:
    moody.errors = [error]
    with pytest.raises(kind):
        fetch("moody://bucket/a.jpg", size, Limits())
    assert moody.requests == 1


@pytest.mark.parametrize(
    "uri",
    [
        "nosuchprotocol://bucket/a.jpg", "/tmp/nul\0byte.jpg", "", "::", "a::b", "://", "file://",
        "zip://a.jpg", "zip://a.jpg::", "tar://a.jpg", "reference://a.jpg", "memory://",
        "dir://a.jpg", "\udce9.jpg", "/" + "x" * 5000, "blockcache::memory://a.jpg",
    ],
)  # fmt: skip
def test_a_nonsense_uri_fails_its_own_image_only(uri: str) -> None:
    with pytest.raises(ImageError) as caught:
        fetch(uri, None, Limits())
    assert "\n" not in str(caught.value)


def test_the_cap_needs_no_request_where_the_size_is_planned(moody: type[Moody]) -> None:
    with pytest.raises(TooLarge, match=r"100 bytes.*--limits\.max-bytes"):
        fetch("moody://bucket/a.jpg", 101, Limits(max_bytes=100))
    assert moody.requests == 0


@pytest.mark.parametrize("size", [None, 90], ids=["size unknown", "grown since the plan"])
def test_of_a_large_object_one_byte_more_than_the_cap_is_read(
    moody: type[Moody], size: int | None
) -> None:
    moody.content = b"x" * 10_000
    with pytest.raises(TooLarge):
        fetch("moody://bucket/a.jpg", size, Limits(max_bytes=100))
    assert moody.sent <= 101


@pytest.mark.parametrize("size", [None, 100])
def test_an_object_of_exactly_the_cap_is_read(moody: type[Moody], size: int | None) -> None:
    moody.content = b"x" * 100
    assert fetch("moody://bucket/a.jpg", size, Limits(max_bytes=100)) == moody.content


@pytest.mark.parametrize("size", [None, 0])
def test_an_empty_file(tmp_path: Path, size: int | None) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert fetch(str(tmp_path / "empty.jpg"), size, Limits()) == b""


def test_storage_that_refuses_ranges_of_empty_objects(moody: type[Moody]) -> None:
    moody.content = b""
    moody.errors = [OSError(errno.EINVAL, "InvalidRange")]
    assert fetch("moody://bucket/empty.jpg", None, Limits()) == b""


TRANSIENT = [
    ConnectionResetError("reset by peer"),
    TimeoutError("timed out"),
    OSError(errno.EIO, "Input/output error"),
    OSError("Please reduce your request rate (SlowDown)"),
    RuntimeError("an error of a client library"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("size", [None, 6])
def test_transient_errors_are_retried(
    moody: type[Moody], error: Exception, size: int | None
) -> None:
    moody.errors = [error] * 3
    assert fetch("moody://bucket/a.jpg", size, Limits()) == b"pixels"
    assert moody.requests == 4


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
def test_errors_that_stay_say_nothing_about_the_image(moody: type[Moody], error: Exception) -> None:
    moody.errors = [error] * 1000
    with pytest.raises(StorageUnavailable, match=r"moody://bucket/a\.jpg") as caught:
        fetch("moody://bucket/a.jpg", None, Limits())
    assert not isinstance(caught.value, ImageError)
    assert 2 <= moody.requests < 20
    assert "\n" not in str(caught.value)


def s3_error(code: str) -> Exception:
    """An error as s3fs raises it."""
    answer = {"Error": {"Code": code, "Message": f"said {code}"}}
    return translate_boto_error(ClientError(answer, "GetObject"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "code",
    [
        "SlowDown", "InternalError", "RequestTimeout", "ExpiredToken", "InvalidToken",
        "TokenRefreshRequired", "RequestTimeTooSkewed", "NoCodeThatIsKnown",
    ],
)  # fmt: skip
def test_what_s3_says_of_itself_or_of_keys_is_no_word_on_the_image(
    moody: type[Moody], code: str
) -> None:
    moody.errors = [s3_error(code)]
    assert fetch("moody://bucket/a.jpg", 6, Limits()) == b"pixels"
    moody.errors = [s3_error(code)] * 1000
    with pytest.raises(StorageUnavailable, match=code):
        fetch("moody://bucket/a.jpg", 6, Limits())


@pytest.mark.parametrize(
    "code",
    [
        "InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed",
        "PermanentRedirect", "IllegalLocationConstraintException",
    ],
)  # fmt: skip
def test_keys_that_the_storage_does_not_know_are_not_waited_out(
    moody: type[Moody], code: str
) -> None:
    moody.errors = [s3_error(code)]
    with pytest.raises(KeysRefused, match=code):
        fetch("moody://bucket/a.jpg", 6, Limits())
    assert moody.requests == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NoSuchKey", NotFound), ("AccessDenied", AccessDenied),
        ("InvalidObjectState", Archived), ("KeyTooLongError", StorageError),
    ],
)  # fmt: skip
def test_what_s3_says_of_an_object_is_final(
    moody: type[Moody], code: str, kind: type[ImageError]
) -> None:
    moody.errors = [s3_error(code)]
    with pytest.raises(kind):
        fetch("moody://bucket/a.jpg", 6, Limits())
    assert moody.requests == 1


def test_keys_that_expire_after_a_body_was_cut_do_not_fail_the_image(
    moody: type[Moody], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A HEAD is refused without a word why.
    def refuse(*_: Any, **__: Any) -> None:
        raise s3_error("403")

    monkeypatch.setattr(Moody, "info", refuse)
    moody.cuts = 1
    assert fetch("moody://bucket/a.jpg", 6, Limits()) == b"pixels"


@pytest.mark.parametrize(("status", "final"), [(400, True), (429, False), (503, False)])
def test_http_says_what_is_final(moody: type[Moody], status: int, final: bool) -> None:
    request = aiohttp.RequestInfo(URL("http://h/a.jpg"), "GET", CIMultiDictProxy(CIMultiDict()))
    moody.errors = [aiohttp.ClientResponseError(request, (), status=status)]
    if final:
        with pytest.raises(StorageError):
            fetch("moody://bucket/a.jpg", 6, Limits())
    else:
        assert fetch("moody://bucket/a.jpg", 6, Limits()) == b"pixels"


def test_a_storage_that_connects_when_it_is_named_may_come_back(
    moody: type[Moody], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [ConnectionRefusedError("refused"), TimeoutError("timed out")]

    def connect(self: Moody, *args: Any, **named: Any) -> None:
        if refusals:
            raise refusals.pop()

    monkeypatch.setattr(Moody, "__init__", connect)
    assert fetch("moody://bucket/a.jpg", 6, Limits()) == b"pixels"
    assert refusals == []


def test_nothing_is_tried_again_for_nobody(moody: type[Moody]) -> None:
    given_up = threading.Event()
    given_up.set()
    moody.errors = [ConnectionResetError("reset")] * 2
    with pytest.raises(StorageUnavailable):
        fetch("moody://bucket/a.jpg", 6, Limits(), given_up)
    assert moody.requests == 1


def test_the_budget_bounds_the_wait(moody: type[Moody], monkeypatch: pytest.MonkeyPatch) -> None:
    stamina.set_testing(False)
    monkeypatch.setattr(gazecore.images.fetch, "RETRY_SECONDS", 0.3)
    moody.errors = [ConnectionResetError("reset")] * 1000
    started = time.monotonic()
    with pytest.raises(StorageUnavailable):
        fetch("moody://bucket/a.jpg", 6, Limits())
    assert 0.3 <= time.monotonic() - started < 20
    assert moody.requests >= 2


@pytest.mark.parametrize("mode", ["refuses", "hangs"])
def test_one_try_at_s3_is_one_request(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # s3fs and botocore try 125 times between them by default: half an hour where nothing answers.
    monkeypatch.setattr(S3FileSystem, "read_timeout", 0.3)
    stamina.set_testing(True, attempts=2)
    came = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        if mode == "refuses":
            server.close()
        with pytest.raises(StorageUnavailable, match=r"Connect|Timeout"):
            fetch("s3://bucket/a.jpg", 6, Limits())
        if mode == "hangs":
            server.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                while True:
                    server.accept()[0].close()
                    came += 1
            assert came == 2


def test_a_final_answer_after_a_transient_one(moody: type[Moody]) -> None:
    moody.errors = [ConnectionResetError("reset"), FileNotFoundError("gone")]
    with pytest.raises(NotFound):
        fetch("moody://bucket/a.jpg", None, Limits())
    assert moody.requests == 2


def test_a_body_that_was_cut_is_read_again(moody: type[Moody]) -> None:
    moody.cuts = 2
    assert fetch("moody://bucket/a.jpg", len(moody.content), Limits()) == b"pixels"
    assert moody.requests == 3
    moody.cuts = 1000
    with pytest.raises(StorageUnavailable, match="3 bytes came of 6"):
        fetch("moody://bucket/a.jpg", len(moody.content), Limits())


def test_an_object_that_became_smaller_is_read_as_it_is_now(moody: type[Moody]) -> None:
    assert fetch("moody://bucket/a.jpg", 100, Limits()) == b"pixels"
    assert moody.requests == 1
