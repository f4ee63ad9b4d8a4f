"""Where the images are: a folder, prefix, glob or list becomes a stream of rows.

Everything is yielded in pieces, so an input of any length is listed in bounded memory (on storage
other than S3 and local disks, one directory is held at a time).
"""

import errno
import itertools
import os
import re
from collections.abc import Iterator
from typing import Any

import fsspec.asyn
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ParamValidationError
from fsspec.utils import glob_translate

from gazecore.errors import InputError, RunFailed, one_line
from gazecore.images.decode import SUFFIXES
from gazecore.storage import Location

LISTED = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("version", pa.string()),
    ]
)
"""`size` in bytes and `version` (ETag or modification time) are null where the source is a list."""

LIST_SUFFIXES = (".parquet", ".csv", ".tsv", ".txt")
_BATCH = 10_000

_USERS_ERRORS = (FileNotFoundError, PermissionError, NotADirectoryError, ParamValidationError)
_USERS_ERRNOS = {errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP}

Entry = tuple[str, int | None, str | None]
"""Path on its storage, size, version."""


def list_images(source: str) -> Iterator[pa.RecordBatch]:
    """List the images of an input.

    Args:
        source: a folder or prefix (files named like images, recursively), a glob, one image, or a
            list: Parquet or CSV with a column `uri` and optionally `image_id`, or text with one
            URI per line. Paths in a list are relative to the list's folder.

    Yields:
        Batches of the schema `LISTED`. image_id is the path relative to the folder (for a glob,
        to the part before its first wildcard), or what the list says, or the list's URI.

    Raises:
        InputError: there is nothing of that name, it holds no image, or the list cannot be read.
        RunFailed: the storage does not answer; what was yielded until then is not all.
    """
    location = Location(source)
    found = False
    try:
        for batch in _list(location, source):
            found = True
            yield batch
    except (OSError, BotoCoreError) as error:
        message = f"cannot list {source}: {one_line(error)}"
        if isinstance(error, _USERS_ERRORS) or getattr(error, "errno", None) in _USERS_ERRNOS:
            raise InputError(message) from error
        raise RunFailed(f"{message}; the same command tries again") from error
    if not found:
        raise InputError(f"there are no images in {source}")


def _list(location: Location, source: str) -> Iterator[pa.RecordBatch]:
    kind = _kind(location)
    if kind == "file" and location.path.lower().endswith(LIST_SUFFIXES):
        yield from _from_list(location)
    elif kind == "file":
        root = location.path.rpartition("/")[0]
        yield from _batches(location, root, iter([_entry(location.fs.info(location.path))]))
    elif kind == "directory":
        entries = (e for e in _walk(location) if e[0].lower().endswith(SUFFIXES))
        yield from _batches(location, location.path, entries)
    elif any(mark in location.path for mark in "*?["):
        first = min(location.path.index(m) for m in "*?[" if m in location.path)
        root = location.path[:first].rpartition("/")[0]
        yield from _batches(location, root, _glob(location, root))
    else:
        raise InputError(f"there is no folder, glob, image or list at {source}")


def _kind(location: Location) -> str | None:
    """`file`, `directory` or None where nothing is.

    Not by `isfile` and `isdir`: they take a storage that does not answer for one that has nothing,
    and list a prefix to its end.
    """
    try:
        kind: str = location.fs.info(location.path)["type"]
    except (FileNotFoundError, ValueError):
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
        entries = _walk(Location(str(location.fs.unstrip_protocol(root))))
    else:
        entries = _visit(location.fs, root, location.path.count("/") - root.count("/"))
    yield from (entry for entry in entries if pattern.match(entry[0]))


def absolute_input(source: str) -> str:
    """An input as run.json names it, the same from every working directory."""
    return Location(source).uri


def _walk(location: Location) -> Iterator[Entry]:
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
                    yield path, None, None
                else:
                    yield path, status.st_size, str(status.st_mtime_ns)
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
    version = next((info[k] for k in ("ETag", "etag", "mtime", "LastModified") if k in info), None)
    return info["name"], info.get("size"), None if version is None else str(version).strip('"')


def _batches(location: Location, root: str, entries: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
    skip = len(root.rstrip("/")) + 1
    rows: dict[str, list[Any]] = {name: [] for name in LISTED.names}
    for path, size, version in entries:
        _encodable(path)
        rows["image_id"].append(path[skip:])
        rows["uri"].append(path if location.is_local else location.fs.unstrip_protocol(path))
        rows["size"].append(size)
        rows["version"].append(version)
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


def _from_list(location: Location) -> Iterator[pa.RecordBatch]:
    base = location.path.rpartition("/")[0]
    folder = base if location.is_local else str(location.fs.unstrip_protocol(base))
    try:
        with location.fs.open(location.path, "rb") as file:
            for batch in _list_columns(location.path, file):
                uris = [_absolute(uri, folder) for uri in batch["uri"].to_pylist()]
                ids = batch["image_id"] if "image_id" in batch.schema.names else batch["uri"]
                if ids.null_count or "" in ids.to_pylist():
                    raise InputError(f"{location.uri}: a row has no image_id")
                nulls = [None] * len(uris)
                yield pa.record_batch(
                    [
                        ids.cast(pa.string()),
                        pa.array(uris, pa.string()),
                        pa.array(nulls, pa.int64()),
                        pa.array(nulls, pa.string()),
                    ],
                    schema=LISTED,
                )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{location.uri} is not a readable list: {one_line(error)}") from error


def _absolute(uri: str | None, folder: str) -> str:
    if not uri:
        raise InputError("the list has a row without a uri")
    return uri if "://" in uri or uri.startswith("/") else f"{folder}/{uri}"


def _list_columns(path: str, file: Any) -> Iterator[pa.RecordBatch]:
    """Batches with a column `uri` and perhaps `image_id`, both strings."""
    suffix = path.lower().rpartition(".")[2]
    if suffix == "txt":
        lines = (line.decode().lstrip("\ufeff").strip() for line in file)
        kept = (line for line in lines if line and line != "uri")
        while chunk := list(itertools.islice(kept, _BATCH)):
            yield pa.record_batch({"uri": chunk})
        return
    if suffix == "parquet":
        parquet = pq.ParquetFile(file)
        names = set(parquet.schema_arrow.names)
        _check_columns(path, names)
        batches = parquet.iter_batches(
            _BATCH, columns=[n for n in ("uri", "image_id") if n in names], use_threads=False
        )
    else:
        batches = pa.csv.open_csv(
            file,
            parse_options=pa.csv.ParseOptions(delimiter="\t" if suffix == "tsv" else ","),
            convert_options=pa.csv.ConvertOptions(
                column_types={"uri": pa.string(), "image_id": pa.string()}
            ),
        )
        _check_columns(path, set(batches.schema.names))
    for batch in batches:
        yield pa.record_batch(
            {
                name: batch[name].cast(pa.string())
                for name in ("uri", "image_id")
                if name in batch.schema.names
            }
        )


def _check_columns(path: str, names: set[str]) -> None:
    if "uri" not in names:
        raise InputError(f"{path} has no column `uri`; its columns are {', '.join(sorted(names))}")
