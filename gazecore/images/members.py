"""The members of the containers among the files that a listing finds."""

import itertools
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import NamedTuple

from gazecore.errors import ImageError, InputError
from gazecore.images.choice import Choice
from gazecore.images.containers import TABLES, Kind, kind_of_container, with_place
from gazecore.images.containers import Entry as File
from gazecore.images.containers.archives import entries as archive_entries
from gazecore.images.containers.tables import Table, open_table
from gazecore.images.formats import SUFFIXES
from gazecore.images.lists import Columns
from gazecore.storage import Location


class Entry(NamedTuple):
    """Path on its storage, size, version; the id where the path does not give it; and what is
    carried along."""

    path: str
    size: int | None
    version: str | None
    image_id: str | None = None
    kept: tuple[tuple[str, str | None], ...] | None = None


AT_ONCE = 8
"""Containers that are looked into at the same time, and twice as many ahead of the listing."""

BESIDE = "beside the image of their sample"
NESTED = "containers in archives"
NO_IMAGES = "tables without a column of images"


@dataclass
class _Contents:
    """What is in a container: files of an archive, or a table; why there may be more; and
    what of an archive is no file."""

    files: list[File] = field(default_factory=list)
    table: Table | None = None
    broken: ImageError | None = None
    left_out: Counter[str] = field(default_factory=Counter)


def unpacked(
    location: Location,
    entries: Iterable[Entry],
    choice: Choice,
    columns: Columns,
    is_alone: bool = False,
) -> Iterator[Entry]:
    """Files, with the images in containers in the place of those.

    Args:
        location: on their storage.
        entries: the files.
        choice: which members are wanted.
        columns: of Parquet, those of the images' bytes and of ids.
        is_alone: a container is all that is listed: one that cannot be opened is an error.

    Raises:
        ImageError: there is nothing in the one container, for this reason.
        StorageUnavailable: the storage does not answer.
    """
    stop = Event()
    waiting: deque[tuple[Entry, Future[_Contents] | None]] = deque()
    pool = ThreadPoolExecutor(AT_ONCE, "gazecore-list")

    def ready() -> Iterator[Entry]:
        entry, future = waiting.popleft()
        if future is None:
            yield entry
            return
        found = future.result()
        if is_alone and found.broken and not (found.files or found.table):
            raise found.broken
        yield from _members(entry, found, choice, columns)

    try:
        for entry in entries:
            kind = kind_of_container(entry.path.partition("?")[0] if is_alone else entry.path)
            uri = entry.path if location.is_local else location.fs.unstrip_protocol(entry.path)
            future = pool.submit(_look_into, uri, kind, columns, stop) if kind else None
            waiting.append((entry, future))
            if len(waiting) > 2 * AT_ONCE:
                yield from ready()
        while waiting:
            yield from ready()
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


def is_list_of_rows(location: Location, columns: Columns) -> bool:
    """Whether a Parquet file is a list of images, and holds none; also where nobody can read it."""
    try:
        return not open_table(location.uri, columns.uri).candidates
    except ImageError:
        return True


def _look_into(uri: str, kind: Kind, columns: Columns, stop: Event) -> _Contents:
    found = _Contents()
    try:
        if kind in TABLES:
            column = open_table(uri, columns.uri)
            if len(column.candidates) > 1:
                raise InputError(
                    f"{uri} has several columns of bytes, {', '.join(column.candidates)}: say "
                    "which holds the images by --uri-column"
                )
            if column.candidates:
                found.table, found.broken = column, column.broken
            else:
                found.left_out[NO_IMAGES] += 1
        else:
            for entry in archive_entries(uri, kind, found.left_out, stop):
                found.files.append(entry)
    except ImageError as error:
        found.broken = error
    return found


def _members(
    container: Entry, found: _Contents, choice: Choice, columns: Columns
) -> Iterator[Entry]:
    path, version = container.path, container.version
    choice.left_out.update(found.left_out)
    if found.table:
        yield from _rows(container, found.table, columns)
    for file in _wanted(found.files, choice):
        yield Entry(f"{path}#{file.name}", file.size, with_place(version, file.place))
    if found.broken:
        yield Entry(f"{path}#", None, version)


def _rows(container: Entry, table: Table, columns: Columns) -> Iterator[Entry]:
    """The rows of a table of images."""
    prefix = f"{container.path}#" + (f"{columns.uri}/" if columns.uri else "")
    took = f"images by the bytes in column `{table.candidates[0]}`"
    columns.took = took + (f", ids by `{columns.ids}`" if columns.ids else "")
    names = [*([columns.ids] if columns.ids else ()), *columns.keep]
    texts = table.texts(names) if names else itertools.repeat(())
    for row, values in zip(range(table.rows), texts, strict=False):
        image_id = values[0] if columns.ids else None
        if columns.ids and not image_id:
            raise InputError(
                f"{container.path}: row {row} has no {columns.ids} (the first is row 0)"
            )
        kept = tuple(zip(columns.keep, values[len(names) - len(columns.keep) :], strict=True))
        yield Entry(f"{prefix}{row}", None, container.version, image_id, kept or None)


def _wanted(files: Iterable[File], choice: Choice) -> Iterator[File]:
    """The images among an archive's files.

    Files of one key, which is a name up to its first dot, are a sample of WebDataset where one of
    them is no image: of `7.jpg`, `7.seg.png` and `7.json`, `7.jpg` is the image.
    """
    for _, group in itertools.groupby(files, lambda file: _key(file.name)[0]):
        sample = list(group)
        images = [file for file in sample if file.name.lower().endswith(SUFFIXES)]
        plain = [file for file in images if "." not in _key(file.name)[1]]
        is_sample = plain and len(images) < len(sample)
        for file in sample:
            if (
                is_sample
                and file in images
                and file not in plain
                and not choice.includes(file.name)
            ):
                choice.left_out[BESIDE] += 1
            elif kind_of_container(file.name):
                choice.left_out[NESTED] += 1
            elif choice.takes(file.name):
                yield file


def _key(name: str) -> tuple[str, str]:
    """A file's key and its extension, as WebDataset has them."""
    folder, slash, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return folder + slash + key, extension
