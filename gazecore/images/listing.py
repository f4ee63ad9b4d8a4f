"""Where the images are: a folder, prefix, glob or list becomes a stream of rows.

Everything is yielded in pieces, so an input of any length is listed in bounded memory (on storage
other than S3 and local disks, one directory is held at a time).
"""

import itertools
import os
from collections.abc import Collection, Iterator
from typing import Any

import aiohttp
import fsspec
import fsspec.asyn
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from gazecore.errors import ImageError, InputError, one_line, redact
from gazecore.images.decode import SUFFIXES
from gazecore.storage import Location, protocol_of, refuse_password

LISTED = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("version", pa.string()),
    ]
)
"""`size` in bytes and `version` (ETag or modification time) are null where the source is a list."""

STORAGES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https"})
"""What a list on this machine may name besides local paths."""

_WEB = ("http", "https")

LIST_SUFFIXES = (".parquet", ".csv", ".tsv", ".txt")
_BATCH = 10_000
_KNOWN = frozenset(fsspec.available_protocols())

Entry = tuple[str, int | None, str | None]
"""Path on its storage, size, version."""


def list_images(source: str, allow: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
    """List the images of an input.

    Args:
        source: a folder or prefix (files named like images, recursively), a glob, one image, or a
            list: Parquet or CSV with a column `uri` and optionally `image_id`, or text with one
            URI per line. Paths in a list are relative to the list's folder.
        allow: protocols that a list may name besides its own storage (`file`: local paths). One
            on this machine may name local paths and STORAGES without.

    Yields:
        Batches of the schema `LISTED`. image_id is the path relative to the folder (for a glob,
        to the part before its first wildcard), or what the list says, or the list's URI, without
        the query of a signed URL.

    Raises:
        InputError: there is nothing of that name, it holds no image, or the list cannot be read or
            names what it may not.
    """
    location = Location(source)
    found = False
    try:
        for batch in _list(location, source, allow):
            found = True
            yield batch
    except (OSError, aiohttp.ClientError, ImageError) as error:
        raise InputError(f"cannot list {source}: {one_line(error)}") from error
    if not found:
        raise InputError(f"there are no images in {source}")


def _list(location: Location, source: str, allow: Collection[str]) -> Iterator[pa.RecordBatch]:
    if location.fs.isfile(location.path):
        if _name(location).lower().endswith(LIST_SUFFIXES):
            yield from _from_list(location, allow)
        else:
            root = location.path.rpartition("/")[0]
            yield from _batches(location, root, iter([_entry(location.fs.info(location.path))]))
    elif location.fs.isdir(location.path):
        entries = (e for e in _walk(location) if e[0].lower().endswith(SUFFIXES))
        yield from _batches(location, location.path, entries)
    elif any(mark in location.path for mark in "*?["):
        first = min(location.path.index(m) for m in "*?[" if m in location.path)
        found = location.fs.glob(location.path, detail=True)
        entries = (_entry(found[k]) for k in sorted(found) if found[k]["type"] == "file")
        yield from _batches(location, location.path[:first].rpartition("/")[0], entries)
    else:
        raise InputError(f"there is no folder, glob, image or list at {source}")


def absolute_input(source: str) -> str:
    """An input as run.json names it, the same from every working directory, without secrets."""
    return redact(Location(source).uri)


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
        for _, folders, files in location.fs.walk(location.path, detail=True, on_error="raise"):
            # Sorted in place: walk descends in this order.
            for name in sorted(folders):
                folders[name] = folders.pop(name)
            yield from (_entry(files[name]) for name in sorted(files))


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


def _name(location: Location) -> str:
    """The path without the query of a URL."""
    is_web = protocol_of(location.uri) in _WEB
    return location.path.partition("?")[0] if is_web else location.path


def _from_list(location: Location, allow: Collection[str]) -> Iterator[pa.RecordBatch]:
    base = _name(location).rpartition("/")[0]
    folder = base if location.is_local else str(location.fs.unstrip_protocol(base))
    try:
        with location.fs.open(location.path, "rb") as file:
            for batch in _list_columns(_name(location), file):
                named = batch["uri"].to_pylist()
                uris = [_absolute(uri, folder) for uri in named]
                for uri in uris:
                    refuse_password(uri)
                    _refuse_outside(uri, location, allow)
                if "image_id" in batch.schema.names:
                    ids = batch["image_id"]
                else:
                    ids = pa.array([_id(*pair) for pair in zip(named, uris, strict=True)])
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


def _id(named: str, uri: str) -> str:
    """The image_id where the list gives none: what it names, without a signature."""
    return redact(named) if "?" in named and protocol_of(uri) in _WEB else named


def _absolute(uri: str | None, folder: str) -> str:
    if not uri:
        raise InputError("the list has a row without a uri")
    return uri if "://" in uri or uri.startswith("/") else f"{folder}/{uri}"


def _refuse_outside(uri: str, lists: Location, allow: Collection[str]) -> None:
    """Raise InputError where the list may not name this URI.

    Who can write to a bucket must not thereby choose what is read of the machines that score.
    """
    protocol, own = protocol_of(uri), lists.fs.protocol
    if protocol in allow:
        return
    if lists.is_local:
        # What nobody knows reaches nothing: its image fails, and no other.
        if protocol in STORAGES or protocol == "file" or protocol not in _KNOWN:
            return
    elif protocol in ((own,) if isinstance(own, str) else own) and (
        protocol not in _WEB or _host(uri) == _host(lists.uri)  # a web server speaks for itself
    ):
        return
    where = "local paths" if protocol == "file" else f"{protocol}:// elsewhere"
    raise InputError(
        f"{lists.uri} names {uri}, but it may not name {where}: "
        f"take it out, or use --allow {protocol} if you trust the list"
    )


def _host(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[0]


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
            _BATCH, columns=[n for n in ("uri", "image_id") if n in names]
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
