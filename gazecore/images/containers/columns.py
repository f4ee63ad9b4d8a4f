"""Parquet files with a column of images' bytes, alone or as Hugging Face keeps them, in structs of
`bytes` and `path`. Of no other column anything is read, but of those that are asked for."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from gazecore.errors import GazecoreError, InputError, NotFound, StorageError, one_line
from gazecore.images.containers.ranges import RangeFile
from gazecore.images.kept import as_text

LIKELY = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "image_bytes", "bytes",
          "content", "data")  # fmt: skip
"""Names of columns of images, the likelier ones first."""

_BATCH = 8 * 2**20
"""Bytes of rows that are held at a time, where they are of one size."""


def image_columns(schema: pa.Schema, wanted: str | None = None) -> dict[str, str]:
    """The columns that may hold images' bytes: their names, and the paths of their leaves.

    Args:
        schema: of the table.
        wanted: a column's name, if it is known. Otherwise one of a likely name is taken, and where
            there is a column `uri`, none: that is a list of images.
    """
    leaves = {field.name: leaf for field in schema if (leaf := _leaf(field))}
    if wanted is not None:
        return {wanted: leaves[wanted]} if wanted in leaves else {}
    if "uri" in schema.names:
        return {}
    likely = [name for name in LIKELY if name in leaves]
    return {likely[0]: leaves[likely[0]]} if likely else leaves


def _leaf(field: pa.Field) -> str | None:
    if _is_bytes(field.type):
        return str(field.name)
    if pa.types.is_struct(field.type):
        at = field.type.get_field_index("bytes")
        if at >= 0 and _is_bytes(field.type.field(at).type):
            return f"{field.name}.bytes"
    return None


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def require_columns(names: Sequence[str], there: Sequence[str], uri: str) -> None:
    """Raise InputError where a table lacks one of the columns; of a field its struct is looked
    for."""
    for name in names:
        if name.partition(".")[0] not in there:
            found = ", ".join(there)
            raise InputError(f"{uri} has no column `{name}`; its columns are {found}")


def texts_of(
    batch: pa.RecordBatch, names: Sequence[str], uri: str
) -> Iterator[tuple[str | None, ...]]:
    """The rows of columns as text, see `Column.texts`."""
    columns = []
    for name in names:
        top, _, field = name.partition(".")
        column = batch.column(top)
        columns.append(as_text(column.field(field) if field else column, name, uri).to_pylist())
    return zip(*columns, strict=True)


class Column:
    """A Parquet file's column of images, which is read in order and a row group at a time.

    Attributes:
        candidates: names of the columns that it may be: one, or none is read.
        names: of all columns.
        position: the row that is read next without going back.
        broken: nothing: without its end no Parquet file is read.
    """

    broken: StorageError | None = None

    def __init__(self, uri: str, wanted: str | None = None) -> None:
        """Read the footer.

        Args:
            uri: of the file.
            wanted: the column's name; None: it is guessed.

        Raises:
            StorageError: it is no readable Parquet file.
            NotFound, AccessDenied, StorageUnavailable: as `fetch`.
        """
        self._uri, self._source = uri, RangeFile(uri)
        try:
            self._file = pq.ParquetFile(self._source, buffer_size=2**20, pre_buffer=False)
            leaves = image_columns(self._file.schema_arrow, wanted)
        except Exception as error:
            raise self._meaning(error) from error
        self.names, self.candidates = self._file.schema_arrow.names, list(leaves)
        self._leaf = next(iter(leaves.values()), "")
        metadata = self._file.metadata
        counts = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        self._starts = [sum(counts[:g]) for g in range(len(counts) + 1)]
        paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        self._index = paths.index(self._leaf) if self._leaf else -1
        self._broken: dict[int, GazecoreError] = {}
        self.position = 0
        self._group = -1
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rows, self._first = pa.array([], pa.binary()), 0

    @property
    def rows(self) -> int:
        """How many there are."""
        count: int = self._starts[-1]
        return count

    def texts(self, names: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
        """Other columns, as text, a row at a time; of a struct's field the name is its path,
        `image.path`.

        Raises:
            InputError: there is no such column, or it is no text.
            StorageError, StorageUnavailable: as `read`.
        """
        require_columns(names, self.names, self._uri)
        try:
            self._source.expect(self._source.size)
            for batch in self._file.iter_batches(10_000, columns=names, use_threads=False):
                yield from texts_of(batch, names, self._uri)
        except Exception as error:
            raise self._meaning(error) from error

    def expect(self, row: int) -> None:
        """Say which row is the last that will be read soon: none beyond its group is read ahead."""
        group = next((g for g, end in enumerate(self._starts[1:]) if row < end), -1)
        if group >= 0 and self._index >= 0:
            chunk = self._file.metadata.row_group(group).column(self._index)
            begin = chunk.dictionary_page_offset or chunk.data_page_offset
            self._source.expect(begin + chunk.total_compressed_size)

    def read(self, row: int) -> bytes:
        """An image. Going back within a row group reads it from its begin.

        Raises:
            NotFound: the row is empty, or there is none of this number.
            StorageError: what it lies in is damaged, or the column is not known.
            StorageUnavailable: see `fetch`.
        """
        if len(self.candidates) != 1:
            which = "several columns" if self.candidates else "no column"
            raise StorageError(
                f"it has {which} of images' bytes; its columns are {', '.join(self.names)}"
            )
        if not 0 <= row < self.rows:
            raise NotFound(f"it has {self.rows} rows, from 0, and none of this number")
        group = next(g for g, end in enumerate(self._starts[1:]) if row < end)
        if error := self._broken.get(group):
            raise error
        try:
            if group != self._group or row < self._first:
                self._begin(group)
            while row >= self._first + len(self._rows):
                self._first += len(self._rows)
                column = next(self._batches).column(0)
                self._rows = column.field("bytes") if self._leaf not in self.candidates else column
        except Exception as error:
            self._group = -1
            meaning = self._meaning(error)
            if isinstance(meaning, StorageError):
                self._broken[group] = meaning
            raise meaning from error
        self.position = row + 1
        data: bytes | None = self._rows[row - self._first].as_py()
        if data is None:
            raise NotFound("its row holds no bytes")
        return data

    def _begin(self, group: int) -> None:
        metadata = self._file.metadata.row_group(group)
        chunk = metadata.column(self._index)
        average = max(1, chunk.total_uncompressed_size // max(1, metadata.num_rows))
        self._batches = self._file.iter_batches(
            max(1, min(256, _BATCH // average)), [group], [self._leaf], use_threads=False
        )
        self._group, self._first, self._rows = group, self._starts[group], self._rows[:0]

    def _meaning(self, error: Exception) -> Exception:
        """What an error of Arrow's is: the storage's own, or damage."""
        if self._source.error or isinstance(error, GazecoreError):
            return self._source.error or error
        return StorageError(f"it is no readable Parquet: {one_line(error)}")


def row_of(name: str) -> tuple[str | None, int]:
    """The column, where it is named, and the row of a member; -1 where it is no number."""
    column, _, row = name.rpartition("/")
    return column or None, int(row) if row.isdecimal() and len(row) < 16 else -1
