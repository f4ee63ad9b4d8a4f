"""Arrow's own files, as streams (Hugging Face's `save_to_disk` and caches) and with a footer, which
have a column of images' bytes. A record batch is read at a time, with all of its columns.

Source of the layout: Arrow's columnar format, "Encapsulated message format", and Message.fbs.
"""

import bisect
import struct
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa

from gazecore.errors import GazecoreError, NotFound, StorageError, one_line
from gazecore.images.containers.columns import image_columns, require_columns, texts_of
from gazecore.images.containers.ranges import FIRST, RangeFile

_DICTIONARY, _BATCH = 2, 3
_GOES_ON, _END = b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\0\0\0\0"

MOST = 2**30
"""Bytes of a record batch, all of which is read at once."""


class Batches:
    """An Arrow file's column of images; the same to others as `Column`.

    Attributes:
        broken: what is wrong behind the batches that were found.
    """

    def __init__(self, uri: str, wanted: str | None = None) -> None:
        """Find the batches: their heads are read, a request each where they are large.

        Args:
            uri: of the file.
            wanted: the column's name; None: it is guessed.

        Raises:
            StorageError: it is no readable Arrow file, or breaks off before its first batch.
            NotFound, AccessDenied, StorageUnavailable: as `fetch`.
        """
        self._uri, self._source = uri, RangeFile(uri)
        self._places: list[tuple[int, int]] = []
        self._starts = [0]
        self.position = 0
        self._held, self._values = -1, pa.array([], pa.binary())
        self._broken: dict[int, GazecoreError] = {}
        self.broken: StorageError | None = None
        try:
            try:
                self._find()
            except Exception as error:
                meaning = self._meaning(error)
                if not self._places or not isinstance(meaning, StorageError):
                    raise
                self.broken = meaning
            stream = pa.ipc.open_stream(pa.BufferReader(self._head + _END))
        except Exception as error:
            raise self._meaning(error) from error
        leaves = image_columns(stream.schema, wanted)
        self.names, self.candidates = stream.schema.names, list(leaves)
        self._leaf = next(iter(leaves.values()), "")

    @property
    def rows(self) -> int:
        """How many there are."""
        return self._starts[-1]

    def expect(self, row: int) -> None:
        """See `Column.expect`."""
        if 0 <= row < self.rows:
            start, length = self._places[bisect.bisect(self._starts, row) - 1]
            self._source.expect(start + length)

    def texts(self, names: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
        """See `Column.texts`. Each batch is read whole, once."""
        require_columns(names, self.names, self._uri)
        tops = {name.partition(".")[0] for name in names}
        try:
            for number in range(len(self._places)):
                yield from texts_of(self._batch(number, tops), names, self._uri)
        except Exception as error:
            raise self._meaning(error) from error

    def read(self, row: int) -> bytes:
        """See `Column.read`; a damaged batch is not asked for again."""
        if len(self.candidates) != 1:
            which = "several columns" if self.candidates else "no column"
            raise StorageError(
                f"it has {which} of images' bytes; its columns are {', '.join(self.names)}"
            )
        if not 0 <= row < self.rows and self.broken:
            raise self.broken
        if not 0 <= row < self.rows:
            raise NotFound(f"it has {self.rows} rows, from 0, and none of this number")
        number = bisect.bisect(self._starts, row) - 1
        if error := self._broken.get(number):
            raise error
        if number != self._held:
            try:
                column = self._batch(number, self.candidates).column(0)
                is_struct = self._leaf not in self.candidates
                self._values = column.field("bytes") if is_struct else column
            except Exception as error:
                meaning = self._meaning(error)
                if isinstance(meaning, StorageError):
                    self._broken[number] = meaning
                raise meaning from error
            self._held = number
        self.position = row + 1
        data: bytes | None = self._values[row - self._starts[number]].as_py()
        if data is None:
            raise NotFound("its row holds no bytes")
        return data

    def _find(self) -> None:
        """Where each batch is, and what precedes them all: the schema and dictionaries."""
        self._source.until = FIRST
        position = 8 if self._source.read(6) == b"ARROW1" else 0
        self._head = b""
        while position < self._source.size:
            self._source.seek(position)
            self._source.until = position + FIRST
            mark, length = struct.unpack("<4sI", self._source.read(8))
            if mark != _GOES_ON or length > 2**24:
                raise StorageError("it is no Arrow file, or one of before 2019")
            if not length:
                return
            kind, rows, body = _message(self._source.read(length))
            end = position + 8 + length + body
            if kind == _BATCH:
                self._places.append((position, end - position))
                self._starts.append(self._starts[-1] + rows)
            else:
                self._source.seek(position)
                self._head += self._part(end - position)
            position = end

    def _part(self, length: int) -> bytes:
        if length > MOST:
            raise StorageError(f"a batch of it has {length} bytes, and at most {MOST} are read")
        data = self._source.read(length)
        if len(data) < length:
            raise StorageError("it ends within a batch")
        return data

    def _batch(self, number: int, names: Collection[str]) -> pa.RecordBatch:
        start, length = self._places[number]
        self._source.seek(start)
        fields = [self.names.index(name) for name in names]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        data = pa.BufferReader(self._head + self._part(length) + _END)
        return pa.ipc.open_stream(data, options=options).read_next_batch()

    def _meaning(self, error: Exception) -> Exception:
        """What an error of Arrow's is: the storage's own, or damage."""
        if self._source.error or isinstance(error, GazecoreError):
            return self._source.error or error
        return StorageError(f"it is no readable Arrow file: {one_line(error)}")


def _message(metadata: bytes) -> tuple[int, int, int]:
    """The kind of a message, its rows if it is a batch, and the bytes of its body."""
    (table,) = struct.unpack_from("<I", metadata)
    (kind,) = _field(metadata, table, 1, "<B")
    (header,) = _field(metadata, table, 2, "<I")
    (body,) = _field(metadata, table, 3, "<q")
    rows = 0
    if kind == _BATCH:
        at = _at(metadata, table, 2)
        (rows,) = _field(metadata, at + header, 0, "<q")
    if rows < 0 or body < 0:
        raise ValueError("a batch of less than nothing")
    return kind, rows, body


def _at(data: bytes, table: int, field: int) -> int:
    """Where a field of a flatbuffer's table is; 0 where it has its default."""
    (back,) = struct.unpack_from("<i", data, table)
    size, _ = struct.unpack_from("<HH", data, table - back)
    if 4 + 2 * field >= size:
        return 0
    (offset,) = struct.unpack_from("<H", data, table - back + 4 + 2 * field)
    return table + offset if offset else 0


def _field(data: bytes, table: int, field: int, form: str) -> tuple[int, ...]:
    at = _at(data, table, field)
    return struct.unpack_from(form, data, at) if at else (0,)
