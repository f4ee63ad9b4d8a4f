"""Where the images are: a folder, prefix, glob or list becomes a stream of rows.

Everything is yielded in pieces, so an input of any length is listed in bounded memory (on storage
other than S3 and local disks, one directory is held at a time; of archives, the members of a few).
"""

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import aiohttp
import fsspec.asyn
import pyarrow as pa
from botocore.exceptions import BotoCoreError, ParamValidationError
from fsspec.utils import glob_translate

from gazecore.errors import (
    ImageError,
    InputError,
    KeysRefused,
    RunFailed,
    StorageUnavailable,
    one_line,
    redact,
)
from gazecore.images.choice import Choice
from gazecore.images.containers import kind_of_container
from gazecore.images.formats import SUFFIXES
from gazecore.images.kept import KEPT
from gazecore.images.lists import Columns, file_name, is_list, read_list
from gazecore.images.members import Entry, is_list_of_rows, unpacked
from gazecore.refusals import keys_refused, with_words
from gazecore.storage import Location

LISTED = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("version", pa.string()),
        pa.field("kept", KEPT),
    ]
)
"""`size` in bytes and `version` (ETag or modification time) are null where the source is a list;
`kept` is what is carried along of its row, null where nothing is."""

_BATCH = 10_000

_VERSIONS = ("ETag", "etag", "blob_id", "mtime", "LastModified")

_USERS_ERRORS = (
    FileNotFoundError, PermissionError, NotADirectoryError, ParamValidationError, ImageError,
)  # fmt: skip
_USERS_ERRNOS = {errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP}


def list_images(
    source: str,
    allow: Collection[str] = (),
    include: Collection[str] = (),
    left_out: Counter[str] | None = None,
    exclude: Collection[str] = (),
    columns: Columns | None = None,
) -> Iterator[pa.RecordBatch]:
    """List the images of an input.

    Args:
        source: a folder or prefix (files named like images, and what is in containers,
            recursively), a glob, one image, one container (tar, zip, or Parquet with a column of
            images), or a list: Parquet, CSV or JSON Lines with a column `uri` and optionally
            `image_id`, or text with one URI per line. Paths in a list are relative to its folder.
        allow: protocols that a list may name besides its own storage (`file`: local paths). One
            on this machine may name local paths and STORAGES without.
        include: globs of files that a folder's listing takes although it would leave them out:
            what systems leave among photographs (`LITTER_NAMES`, `LITTER_FOLDERS`), and files that
            are not named like images that are read. A glob is compared with a file's name, with the
            names of the folders above it, and with its whole path from the folder.
        left_out: counts, by reason, what the listing of a folder or an archive leaves out.
        exclude: globs of files that are left out whatever `include` says.
        columns: what those of a list are called; it is told what was taken.

    Yields:
        Batches of the schema `LISTED`. image_id is the path relative to the folder (for a glob,
        to the part before its first wildcard), or what the list says, or the list's URI, without
        the query of a signed URL; of the members of a container that is the input, their names. A
        container that is broken is a row of its own, which will fail, after its members.

    Raises:
        InputError: there is nothing of that name, it holds no image, or the list cannot be read or
            names what it may not.
        RunFailed: the storage does not answer; what was yielded until then is not all.
    """
    location = Location(source)
    found = False
    try:
        choice = Choice(include, exclude, left_out)
        for batch in _list(location, source, allow, choice, columns or Columns()):
            found = True
            yield batch
    except (OSError, BotoCoreError, RecursionError, aiohttp.ClientError, ImageError) as found_out:
        error = with_words(location.fs, location.path, found_out)
        if refused := keys_refused(error, location.uri):
            raise refused from error
        if isinstance(error, RecursionError):
            raise
        message = f"cannot list {source}: {one_line(error)}"
        if _is_users(error):
            raise InputError(message) from error
        raise RunFailed(f"{message}; the same command tries again") from error
    except StorageUnavailable as error:
        if isinstance(error, KeysRefused):
            raise
        raise RunFailed(
            f"cannot list {source}: {one_line(error)}; the same command tries again"
        ) from error
    if not found:
        raise InputError(f"there are no images in {source}{describe(left_out or {})}")


def describe(left_out: Mapping[str, int]) -> str:
    """What a listing left out, in words that follow others; empty where it was nothing."""
    most = sorted(Counter(left_out).most_common(10))
    words = [f"{count:,} {reason}" for reason, count in most]
    return f" (left out: {', '.join(words)})" if words else ""


def _list(
    location: Location, source: str, allow: Collection[str], choice: Choice, columns: Columns
) -> Iterator[pa.RecordBatch]:
    kind = _kind(location)
    is_container = kind == "file" and kind_of_container(file_name(location)) is not None
    if is_container and not (is_list(location) and is_list_of_rows(location, columns)):
        entries = iter([_entry(location.fs.info(location.path))])
        yield from _batches(
            location, location.path, unpacked(location, entries, choice, columns, True)
        )
    elif kind == "file" and is_list(location):
        for batch in read_list(location, allow, columns):
            ids, uris, kept = batch.columns
            size, version = (
                pa.nulls(batch.num_rows, LISTED.field(name).type) for name in ("size", "version")
            )
            yield pa.record_batch([ids, uris, size, version, kept], schema=LISTED)
    elif kind == "file":
        root = location.path.rpartition("/")[0]
        yield from _batches(location, root, iter([_entry(location.fs.info(location.path))]))
    elif kind == "directory":
        skip = len(location.path.rstrip("/")) + 1
        entries = (e for e in _walk(location, choice) if choice.takes(e[0][skip:]))
        yield from _batches(location, location.path, unpacked(location, entries, choice, columns))
    elif any(mark in location.path for mark in "*?["):
        first = min(location.path.index(m) for m in "*?[" if m in location.path)
        root = location.path[:first].rpartition("/")[0]
        entries = unpacked(location, _glob(location, root), choice, columns)
        yield from _batches(location, root, entries)
    else:
        raise InputError(f"there is no folder, glob, image or list at {source}")


def _is_users(error: Exception) -> bool:
    """Whether a storage refuses the input, as opposed to not answering."""
    if isinstance(error, aiohttp.ClientResponseError):
        return 400 <= error.status < 500
    return isinstance(error, _USERS_ERRORS) or getattr(error, "errno", None) in _USERS_ERRNOS


def _kind(location: Location) -> str | None:
    """`file`, `directory` or None where nothing is.

    Not by `isfile` and `isdir`: they take a storage that does not answer for one that has nothing,
    and list a prefix to its end.
    """
    try:
        kind: str = location.fs.info(location.path)["type"]
    except (FileNotFoundError, ValueError) as error:
        cause = error.__cause__  # on the web everything that can happen is a file not found
        if isinstance(cause, ImageError | StorageUnavailable | aiohttp.ClientConnectionError):
            raise cause from None
        # No glob's path is a page, and servers have more than one word for that.
        if isinstance(cause, aiohttp.ClientResponseError) and "*" not in location.path:
            raise cause from None
        return None
    return kind


def _glob(location: Location, root: str) -> Iterator[Entry]:
    """Files that match, in an order that does not change."""
    if location.is_local:
        found = location.fs.glob(location.path, detail=True)
        yield from (_entry(found[k]) for k in sorted(found) if found[k]["type"] == "file")
        return
    # fsspec's own leaves out folders that it could not list.
    pattern = re.compile(glob_translate(location.path))
    if "**" in location.path:
        entries = _walk(Location(str(location.fs.unstrip_protocol(root))), Choice())
    else:
        entries = _visit(location.fs, root, location.path.count("/") - root.count("/"))
    yield from (entry for entry in entries if pattern.match(entry[0]))


def listing_of(images: pa.Table) -> Iterator[pa.RecordBatch]:
    """What `list_images` would yield of a list: a table's columns image_id and uri."""
    nothing = {name: pa.nulls(images.num_rows, LISTED.field(name).type) for name in LISTED.names}
    table = pa.table({**nothing, "image_id": images["image_id"], "uri": images["uri"]})
    yield from table.select(LISTED.names).cast(LISTED).to_batches()


def absolute_input(source: str) -> str:
    """An input as run.json names it, the same from every working directory, without secrets."""
    return redact(Location(source).uri)


def _walk(location: Location, choice: Choice) -> Iterator[Entry]:
    """All files under a directory, in an order that does not change."""
    if location.is_local:
        seen: set[tuple[int, int]] = set()
        for folder, folders, names in os.walk(location.path, onerror=_raise, followlinks=True):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:  # a link back to where we have been
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()
            for name in sorted(names):
                path = f"{folder}/{name}"
                try:
                    status = os.stat(path)
                except OSError:  # a link that leads nowhere is an input too, and will fail
                    yield Entry(path, None, None)
                else:
                    if stat.S_ISREG(status.st_mode):
                        yield Entry(path, status.st_size, str(status.st_mtime_ns))
                    elif name.lower().endswith(SUFFIXES):
                        choice.skips()
    elif hasattr(location.fs, "_iterdir"):
        yield from _walk_s3(location)
    else:
        yield from _visit(location.fs, location.path)


def _visit(fs: Any, folder: str, depth: int | None = None) -> Iterator[Entry]:
    """Files under a folder, down to some depth; `fs.walk` leaves out what it cannot list."""
    found = sorted(fs.ls(folder, detail=True), key=lambda info: str(info["name"]))
    yield from (_entry(info) for info in found if info["type"] == "file")
    for info in found:
        name = info["name"].rstrip("/")
        if info["type"] == "directory" and name != folder.rstrip("/") and depth != 1:
            yield from _visit(fs, name, depth and depth - 1)


def _raise(error: OSError) -> None:
    raise error


def _walk_s3(location: Location) -> Iterator[Entry]:
    """S3's own flat listing, page by page: one request per 1000 keys, in key order."""
    fs = location.fs
    bucket, _, prefix = location.path.partition("/")
    pages = fs._iterdir(bucket, delimiter="", prefix=f"{prefix}/" if prefix else "").__aiter__()

    async def some() -> list[dict[str, Any]]:
        found = []
        async for info in pages:
            found.append(info)
            if len(found) == _BATCH:
                break
        return found

    while page := fsspec.asyn.sync(fs.loop, some):
        yield from (_entry(info) for info in page if info["type"] == "file")


def _entry(info: dict[str, Any]) -> Entry:
    version = next((info[k] for k in _VERSIONS if k in info), None)
    text = None if version is None else str(version).strip('"')
    return Entry(info["name"], info.get("size"), text)


def _batches(location: Location, root: str, entries: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
    skip = len(root.rstrip("/")) + 1
    rows: dict[str, list[Any]] = {name: [] for name in LISTED.names}
    for path, size, version, image_id, kept in entries:
        _encodable(path)
        rows["image_id"].append(path[skip:] if image_id is None else image_id)
        rows["uri"].append(path if location.is_local else location.fs.unstrip_protocol(path))
        rows["size"].append(size)
        rows["version"].append(version)
        rows["kept"].append(kept)
        if len(rows["uri"]) == _BATCH:
            yield pa.record_batch(rows, schema=LISTED)
            rows = {name: [] for name in LISTED.names}
    if rows["uri"]:
        yield pa.record_batch(rows, schema=LISTED)


def _encodable(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"a file name is not UTF-8: {path!r}; rename it") from None
