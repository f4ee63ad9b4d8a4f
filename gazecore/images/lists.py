"""Lists of images: what they name, and what they may not.

Who can write to a bucket must not thereby choose what is read of the machines that score
(docs/security.md).
"""

import itertools
from collections.abc import Collection, Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from gazecore.errors import InputError, one_line, redact
from gazecore.storage import Location, protocol_of, refuse_password

STORAGES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https"})
"""What a list on this machine may name besides local paths."""

_SUFFIXES = (".parquet", ".csv", ".tsv", ".txt")
_WEB = ("http", "https")
_KNOWN = frozenset(fsspec.available_protocols())
_BATCH = 10_000


def is_list(location: Location) -> bool:
    """Whether a file is named like a list."""
    return _name(location).lower().endswith(_SUFFIXES)


def read_list(location: Location, allow: Collection[str]) -> Iterator[pa.RecordBatch]:
    """What a list names: batches with the columns `image_id` and `uri`, none of them null.

    Args:
        location: of the list.
        allow: protocols that it may name besides its own storage.

    Raises:
        InputError: it cannot be read, lacks a column or a value, or names what it may not.
    """
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
                yield pa.record_batch({"image_id": ids.cast(pa.string()), "uri": uris})
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{location.uri} is not a readable list: {one_line(error)}") from error


def _name(location: Location) -> str:
    """The path without the query of a URL."""
    is_web = protocol_of(location.uri) in _WEB
    return location.path.partition("?")[0] if is_web else location.path


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
