"""Lists of images: what they name, and what they may not.

Who can write to a bucket must not thereby choose what is read of the machines that score
(docs/security.md).
"""

import csv
import io
import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from gazecore.errors import InputError, one_line, redact
from gazecore.images.kept import as_json, as_text, kept_of
from gazecore.storage import Location, protocol_of, refuse_password

STORAGES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "http", "https"})
"""What a list on this machine may name besides local paths."""

_SUFFIXES = (".parquet", ".csv", ".tsv", ".txt", ".jsonl", ".ndjson")
_HEAD = 2**16
_WEB = ("http", "https")
_KNOWN = frozenset(fsspec.available_protocols())
_BATCH = 10_000

GUESSES = ("uri", "url", "URL", "image", "path", "file_name")
"""Names of the column that says where images are, the likelier ones first."""

IDS = "image_id"
"""Name of the column of ids."""

_KEPT = "kept "
"""Before the name of a column that is kept."""


@dataclass
class Columns:
    """What a list's columns are called.

    Attributes:
        uri: where the images are, or in Parquet their bytes; None: by the first of GUESSES.
        ids: their ids; None: `image_id` if it is there.
        keep: others that are carried along, as text.
        took: what was read, in words; empty until then, and where it is `uri` without being asked.
    """

    uri: str | None = None
    ids: str | None = None
    keep: tuple[str, ...] = ()
    took: str = ""


def is_list(location: Location) -> bool:
    """Whether a file is named like a list."""
    return file_name(location).lower().endswith(_SUFFIXES)


def read_list(
    location: Location, allow: Collection[str], columns: Columns
) -> Iterator[pa.RecordBatch]:
    """What a list names: batches with the columns `image_id` and `uri`, none of them null, and
    `kept`, a map of what is carried along.

    Args:
        location: of the list.
        allow: protocols that it may name besides its own storage.
        columns: which are read.

    Raises:
        InputError: it cannot be read, lacks a column or a value, or names what it may not.
    """
    base = file_name(location).rpartition("/")[0]
    folder = base if location.is_local else str(location.fs.unstrip_protocol(base))
    row = 1
    try:
        with location.fs.open(location.path, "rb") as file:
            for batch in _list_columns(file_name(location), file, columns):
                named = batch["uri"].to_pylist()
                for column in {"uri", IDS}.intersection(batch.schema.names):
                    values = named if column == "uri" else batch[column].to_pylist()
                    if empty := next((i for i, v in enumerate(values, row) if not v), 0):
                        called = (columns.uri if column == "uri" else columns.ids) or column
                        raise InputError(
                            f"{location.uri}: row {empty} has no {called} (the first is row 1)"
                        )
                row += len(named)
                uris = [_absolute(uri, folder) for uri in named]
                for uri in uris:
                    refuse_password(uri)
                    _refuse_outside(uri, location, allow)
                if "image_id" in batch.schema.names:
                    ids = batch["image_id"]
                else:
                    ids = pa.array([_id(*pair) for pair in zip(named, uris, strict=True)])
                columns_kept = [batch[_KEPT + name].to_pylist() for name in columns.keep]
                kept = kept_of(columns.keep, columns_kept, len(uris))
                yield pa.record_batch(
                    {"image_id": ids.cast(pa.string()), "uri": uris, "kept": kept}
                )
    except (pa.ArrowException, ValueError) as error:  # of decoding, or of a file without parts
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            raise InputError(
                f"{location.uri} is not UTF-8 text (Latin-1 or Windows-1252, perhaps): save it as "
                "UTF-8"
            ) from error
        raise InputError(f"{location.uri} is not a readable list: {one_line(error)}") from error


def file_name(location: Location) -> str:
    """The path without the query of a URL."""
    is_web = protocol_of(location.uri) in _WEB
    return location.path.partition("?")[0] if is_web else location.path


def _id(named: str, uri: str) -> str:
    """The image_id where the list gives none: what it names, without a signature."""
    return redact(named) if "?" in named and protocol_of(uri) in _WEB else named


def _absolute(uri: str, folder: str) -> str:
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


def _list_columns(path: str, file: Any, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Batches with a column `uri` and perhaps `image_id`, both strings. No other column is read."""
    suffix = path.lower().rpartition(".")[2]
    if suffix == "txt":
        if columns.keep:
            raise InputError(f"{path} has no columns: --keep is for lists and tables that have")
        lines = (line.decode().lstrip("\ufeff").strip() for line in file)
        kept = (line for line in lines if line and line != "uri")
        while chunk := list(itertools.islice(kept, _BATCH)):
            yield pa.record_batch({"uri": chunk})
        return
    if suffix in ("jsonl", "ndjson"):
        yield from _json_lines(path, file, columns)
        return
    if suffix == "parquet":
        parquet = pq.ParquetFile(file)
        asked = {columns.uri, columns.ids or IDS, "uri", *columns.keep}
        names = [f.name for f in parquet.schema_arrow if f.name in asked or _is_text(f)]
        wanted = _wanted(path, names, columns, parquet.schema_arrow.names)
        once = [*dict.fromkeys(wanted.values())]
        batches: Any = parquet.iter_batches(_BATCH, columns=once, use_threads=False)
    else:
        likely = [columns.uri] if columns.uri else GUESSES
        dialect = dialect_of(file.read(_HEAD), "\t" if suffix == "tsv" else ",", likely)
        wanted = _wanted(path, dialect.names, columns)
        file.seek(0)
        batches = pa.csv.open_csv(
            file,
            read_options=dialect.read_options(),
            parse_options=pa.csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(wanted.values(), pa.string()),
                include_columns=[*dict.fromkeys(wanted.values())],
            ),
        )
    for batch in batches:
        yield pa.record_batch({to: as_text(batch[name], name, path) for to, name in wanted.items()})


def _is_text(field: pa.Field) -> bool:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _wanted(
    path: str, names: Sequence[str], columns: Columns, there: Sequence[str] | None = None
) -> dict[str, str]:
    """The columns of a list that are read: `uri`, perhaps `image_id`, and those that are kept, and
    what they are called.

    Args:
        path: of the list.
        names: columns that may be read.
        columns: what was asked for; it is told what is taken.
        there: all columns; None: the same.
    """
    found = ", ".join(names if there is None else there)
    uri = columns.uri or next((name for name in GUESSES if name in names), None)
    if uri is None or uri not in names:
        what = f"no column `{uri}`" if uri else f"none of the columns {', '.join(GUESSES)}"
        raise InputError(
            f"{path} has {what}; its columns are {found}: say by --uri-column which one holds "
            "paths or URIs"
        )
    ids = columns.ids or (IDS if IDS in names else None)
    for name in (*([ids] if ids else ()), *columns.keep):
        if name not in names:
            raise InputError(f"{path} has no column `{name}`; its columns are {found}")
    wanted = {"uri": uri, **({IDS: ids} if ids else {})}
    for name in (*wanted.values(), *columns.keep):
        if names.count(name) > 1:
            raise InputError(f"{path} has {names.count(name)} columns `{name}`: leave it one")
    if wanted not in ({"uri": "uri"}, {"uri": "uri", IDS: IDS}):
        columns.took = f"images by column `{uri}`" + (f", ids by `{ids}`" if ids else "")
    return wanted | {_KEPT + name: name for name in columns.keep}


def _json_lines(path: str, file: Any, columns: Columns) -> Iterator[pa.RecordBatch]:
    """A list with an object on each line, whose keys are columns; the first line says which."""
    wanted: dict[str, str] = {}
    rows: list[list[str | None]] = []
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            row = json.loads(line.decode("utf-8-sig"))
            wanted = wanted or _wanted(path, list(row.keys()), columns)
            values = ((to, row.get(name)) for to, name in wanted.items())
            rows.append([as_json(v) if to.startswith(_KEPT) else v for to, v in values])
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise InputError(f"{where} is no JSON object: {one_line(error)}") from error
        if not all(isinstance(value, str | None) for value in rows[-1]):
            names = [name for to, name in wanted.items() if not to.startswith(_KEPT)]
            raise InputError(f"{where}: {' and '.join(names)} must be text")
        if IDS in row and IDS not in wanted:
            raise InputError(f"{where} has an image_id, the first line has none")
        if len(rows) == _BATCH:
            yield _of_rows([*wanted], rows)
            rows = []
    if rows:
        yield _of_rows([*wanted], rows)


def _of_rows(names: list[str], rows: list[list[str | None]]) -> pa.RecordBatch:
    columns = [pa.array(values, pa.string()) for values in zip(*rows, strict=True)]
    return pa.record_batch(columns, names=names)


@dataclass(frozen=True)
class Dialect:
    """How a text table is written: its encoding, its delimiter, the names of its columns, and the
    lines that those take."""

    encoding: str
    delimiter: str
    names: list[str]
    lines: int = 1

    def read_options(self) -> pa.csv.ReadOptions:
        """For Arrow, which is given the names as they are here instead of the header."""
        return pa.csv.ReadOptions(
            column_names=self.names,
            skip_rows=self.lines,
            encoding=self.encoding,
            use_threads=False,
        )


DELIMITERS = (",", ";", "\t", "|")


def dialect_of(
    head: bytes, delimiter: str, wanted: Collection[str], others: Sequence[str] = DELIMITERS
) -> Dialect:
    """Look at the header of a text table, as spreadsheets of all countries write them.

    Args:
        head: its first bytes.
        delimiter: what its name promises.
        wanted: columns that tell the right delimiter, where it is another.
        others: those that it may be.

    Raises:
        InputError: the header is not in a known encoding.
    """
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    # What is cut at the end of `head` is not in the header.
    text = head.decode(encoding, "ignore").lstrip("\ufeff")
    tried = []
    for mark in (delimiter, *others):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
        try:
            names = next(reader, [])
        except csv.Error:  # a field without end, where a quote means something else
            names = text.split("\n", 1)[0].rstrip("\r").split(mark)
        tried.append(
            Dialect(encoding, mark, [name.strip() for name in names], max(1, reader.line_num))
        )
    return max(tried, key=lambda dialect: len(set(wanted).intersection(dialect.names)))
