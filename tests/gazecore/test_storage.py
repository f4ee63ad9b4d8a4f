"""Files that are too large for memory: they appear as a whole or not at all."""

import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import psutil
import pytest

from gazecore.storage import Location


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    """A file that is not there, in a folder that is not there either."""
    if request.param == "local":
        yield Location(str(tmp_path / "new" / "large.bin"))
    else:
        yield Location("memory://test-storage/new/large.bin")
        fsspec.filesystem("memory").rm("/test-storage", recursive=True)


def write(location: Location, *pieces: bytes) -> None:
    with location.staged() as path, open(path, "wb") as file:
        for piece in pieces:
            assert location.exists() is False or location.read_bytes() == b"before"
            file.write(piece)


def test_a_staged_file_appears_whole_and_replaces_what_is_there(place: Location) -> None:
    write(place, b"bef", b"ore")
    assert place.read_bytes() == b"before"
    write(place, b"after")
    assert place.read_bytes() == b"after"
    assert Location(place.uri.rpartition("/")[0]).names() == ["large.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_staged_file_that_fails_leaves_what_was_there(
    place: Location, error: type[BaseException]
) -> None:
    place.publish(b"before")

    def fail() -> None:
        with place.staged() as path:
            Path(path).write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert place.read_bytes() == b"before"
    assert Location(place.uri.rpartition("/")[0]).names() == ["large.bin"]


def test_what_killed_writers_of_the_same_file_left_is_cleaned_and_nothing_else(
    tmp_path: Path,
) -> None:
    host, gone = socket.gethostname(), subprocess.Popen(["true"])
    gone.wait()
    owner = f"{'0' * 32}@{host}-{gone.pid}.tmp"
    kept = {f"other.bin.{owner}", "large.bin.tmp", f"large.bin.old.{owner}",
            f"large.bin.{'0' * 32}@{host}-{os.getpid()}.tmp"}  # fmt: skip
    for name in (f"large.bin.{owner}", *kept):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (0, 0))
    write(Location(str(tmp_path / "large.bin")), b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"large.bin", *kept}


def test_what_a_killed_writer_left_goes_before_its_parent_has_taken_note(tmp_path: Path) -> None:
    writer = subprocess.Popen(["sleep", "60"])
    owners = {"dead": writer.pid, "alive": os.getpid()}
    for name, pid in owners.items():
        (tmp_path / f"{name}.{uuid.uuid4().hex}@{socket.gethostname()}-{pid}.tmp").touch()
    Location(str(tmp_path)).remove_temporaries()
    assert len(list(tmp_path.iterdir())) == 2
    writer.kill()
    try:
        until = time.monotonic() + 20
        while psutil.Process(writer.pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until
            time.sleep(0.01)
        Location(str(tmp_path)).remove_temporaries()
    finally:
        writer.wait(timeout=20)
    assert [path.name.split(".")[0] for path in tmp_path.iterdir()] == ["alive"]
