"""DuckDB over files of a run: it reads those, writes none, and no path leads to any other."""

import fnmatch
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import duckdb
from fsspec import AbstractFileSystem

from gazecore.cores import cores
from gazecore.errors import one_line
from gazecore.results.files import READERS, WHOLE, File, Folder

CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
}

_WAITING = 16
"""Threads where large files are read by ranges, most of whose time is waiting."""

_PROTOCOL = "gazecore-run"
_RAISED = re.compile(r"[\w.]+(: |$)")


@contextmanager
def database(
    folders: Mapping[str, Sequence[File]], **settings: str | int
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory in which `parquet(NAME)` are the files of each folder.

    What does not fit in memory is spilled to a temporary directory. Everything else is open until
    `confine`.

    Args:
        folders: by a name that is an identifier.
        settings: more of DuckDB's.
    """
    is_far = any(
        not f.object.is_local and f.size > WHOLE for some in folders.values() for f in some
    )
    threads = max(cores(), _WAITING) if is_far else cores()
    with (
        tempfile.TemporaryDirectory(prefix="gazecore-query-") as spilled,
        ThreadPoolExecutor(READERS) as pool,
        duckdb.connect(
            config=CONFIG | {"threads": threads, "temp_directory": spilled} | settings
        ) as db,
    ):
        try:
            db.register_filesystem(_Files(folders, pool))
            yield db
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def parquet(folder: str) -> str:
    """What reads a folder's files, in SQL."""
    return f"read_parquet('{_PROTOCOL}://{folder}/*.parquet')"


def confine(db: duckdb.DuckDBPyConnection) -> None:
    """Close everything but the folders for good, whatever storage they are on."""
    db.execute(f"SET allowed_directories = ['{_PROTOCOL}://']")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")


def said(error: duckdb.Error) -> str:
    """What went wrong, on one line: of an error of the file system, not how it came up here."""
    text = str(error)
    if text.startswith("Traceback"):
        text = next(filter(_RAISED.match, text.splitlines()), text)
    return one_line(Exception(text))


class _Files(AbstractFileSystem):  # type: ignore[misc]
    """The files that were named when it was made. Nothing can be written, nothing else looked up:
    DuckDB cannot confine a file system of Python's to a directory, so that this one is all that
    there is."""

    protocol = _PROTOCOL
    cachable = False

    def __init__(self, folders: Mapping[str, Sequence[File]], pool: ThreadPoolExecutor) -> None:
        super().__init__()
        self._folders = {name: Folder(files, pool) for name, files in folders.items()}

    def glob(self, path: str, **options: Any) -> list[str]:
        """Names of files. Raises FileNotFoundError where there are none."""
        folder, name = self._split(path)
        files = self._folders[folder].files if folder in self._folders else {}
        named = [name] if name in files else [f for f in files if fnmatch.fnmatchcase(f, name)]
        if not named:
            raise FileNotFoundError(f"{path} is not of the run")
        return [f"{folder}/{file}" for file in named]

    def exists(self, path: str, **options: Any) -> bool:
        """Whether it is one of them."""
        folder, name = self._split(path)
        return folder in self._folders and name in self._folders[folder].files

    def size(self, path: str) -> int:
        """Bytes."""
        folder, name = self._known(path)
        return folder.size(name)

    def modified(self, path: str) -> datetime:
        """The same for all: none of them changes while this is used."""
        return datetime.fromtimestamp(0, UTC)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """A file to read."""
        if set(mode) - set("rb"):
            raise PermissionError("a run's files are only read")
        folder, name = self._known(path)
        return folder.open(name)

    def _known(self, path: str) -> tuple[Folder, str]:
        if not self.exists(path):
            raise FileNotFoundError(f"{path} is not of the run")
        folder, name = self._split(path)
        return self._folders[folder], name

    @staticmethod
    def _split(path: str) -> tuple[str, str]:
        folder, _, name = str(path).removeprefix(f"{_PROTOCOL}://").partition("/")
        return folder, name
