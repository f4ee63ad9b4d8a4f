"""Names of temporary files, which say whose they are, so that what is left can be cleaned up."""

import os
import re
import socket
import uuid

import psutil

TEMPORARY_SUFFIX = ".tmp"

_TEMPORARY = re.compile(r"(.+)\.[0-9a-f]{32}@.+-\d+\.tmp", re.DOTALL)


def temporary_path(path: str) -> str:
    """A name beside a file, of this process.

    Unique, so that a late writer of the same file cannot mix its bytes with ours.
    """
    owner = f"{socket.gethostname()}-{os.getpid()}"
    return f"{path}.{uuid.uuid4().hex}@{owner}{TEMPORARY_SUFFIX}"


def is_temporary(name: str, of: str | None) -> bool:
    """Whether that is a temporary file's name; `of`: of the file of this name."""
    if of is None:
        return name.endswith(TEMPORARY_SUFFIX)
    found = _TEMPORARY.fullmatch(name)
    return found is not None and found[1] == of


def is_alive(temporary: str, age: float) -> bool:
    """Whether the process that writes a temporary file, `age` seconds old, may still be at it."""
    host, _, pid = temporary.removesuffix(TEMPORARY_SUFFIX).rpartition("@")[2].rpartition("-")
    if host != socket.gethostname() or not pid.isdigit():
        return age < 86_400
    try:
        # One that was killed stays in the list until its parent has taken note.
        return bool(psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error as error:
        return not isinstance(error, psutil.NoSuchProcess)
