"""Images' bytes, wherever they lie: as files of their own, or as members of containers.

Of a container, a shard's reader reads long ranges that hold many of its members. What can only be
read in order, a row group of Parquet or a compressed tar, stays open for the shards that follow.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Any

from gazecore.errors import ImageError, NotFound, StorageError
from gazecore.images.containers import (
    TABLES,
    TAR_HEADER,
    Kind,
    Place,
    place_in,
    split_member,
    version_in,
)
from gazecore.images.containers.archives import member_bytes
from gazecore.images.containers.blocks import Block
from gazecore.images.containers.columns import row_of
from gazecore.images.containers.indexes import Indexes
from gazecore.images.containers.ranges import in_background
from gazecore.images.containers.series import CompressedTar, Key, Series
from gazecore.images.fetch import fetch, fetch_part, too_large
from gazecore.images.formats import Limits

Take = Callable[[Event | None], bytes]

_indexes = Indexes()


def read(uri: str, limits: Limits = Limits()) -> bytes:
    """One image's bytes; raises as `fetch`."""
    reader = Reader([{"uri": uri, "size": None, "version": None}], limits)
    try:
        return reader.read(0)
    finally:
        reader.close()


class Reader:
    """Reads the images of a shard, from any threads: each of them once, and about in order."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], limits: Limits) -> None:
        """Decide what is read together. The first container that is read in order is opened
        meanwhile.

        Args:
            rows: of the plan: uri, size, version.
            limits: the byte cap, of members, too.
        """
        self._rows, self._limits = rows, limits
        self._begun = time.monotonic()
        self._takes: dict[int, Take] = {}
        self._series: dict[Key, Series] = {}
        block: Block | None = None
        for index, row in enumerate(rows):
            member = split_member(row["uri"])
            if member is None or (row["size"] or 0) > limits.max_bytes:
                continue
            container, kind, name = member
            place = place_in(row["version"])
            if kind in TABLES:
                column, number = row_of(name)
                key = container, column, row["version"]
                self._takes[index] = self._in_series(key, index, number)
            elif place is None:
                continue
            elif kind == "tar.gz":
                key = container, None, version_in(row["version"])
                self._takes[index] = self._in_series(key, index, place)
            else:
                if block is None or not block.takes(container, place):
                    block = Block(container, place.start)
                self._takes[index] = block.add(place)
        for series in list(self._series.values())[:1]:
            in_background.submit(series.begin)

    def read(self, index: int, given_up: Event | None = None) -> bytes:
        """The bytes of an image, by its number among the rows; raises as `fetch`.

        A member has the errors of a file: not_found where its archive does not hold it, too_large
        before it is read, and storage_error where its archive is broken.
        """
        row, limits = self._rows[index], self._limits
        if row["size"] is not None and row["size"] > limits.max_bytes:
            raise too_large(limits)
        member = split_member(row["uri"])
        if member is None:
            return fetch(row["uri"], row["size"], limits, given_up)
        try:
            data = self._member(index, *member, given_up)
        except NotFound as error:
            try:  # nobody can forbid a file a name such as a.tar#b.jpg
                return fetch(row["uri"], row["size"], limits, given_up)
            except ImageError:
                raise error from None
        if len(data) > limits.max_bytes:
            raise too_large(limits)
        return data

    def close(self) -> None:
        """Leave what is open to the shards that follow."""
        for series in self._series.values():
            series.close()

    def _in_series(self, key: Key, index: int, at: Place | int) -> Take:
        series = self._series.get(key)
        if series is None:
            series = Series(key)
            if self._series:
                list(self._series.values())[-1].following = series
            self._series[key] = series
        series.add(index, at)
        return lambda given_up: series.take(index)

    def _member(
        self, index: int, container: str, kind: Kind, name: str, given_up: Event | None
    ) -> bytes:
        take, size = self._takes.get(index), self._rows[index]["size"]
        if take and kind in TABLES:
            return take(given_up)
        changed = 0.0
        if take:
            record = take(given_up)
            if size is None and kind != "zip":
                size = len(record) - TAR_HEADER
            if size is not None:
                if (found := member_bytes(kind, record, name, size)) is not None:
                    return found
                changed = self._begun
        return self._look_up(container, kind, name, changed, given_up)

    def _look_up(
        self, container: str, kind: Kind, name: str, since: float, given_up: Event | None
    ) -> bytes:
        """A member whose place is not known, or has been left."""
        entry = _indexes.find(container, kind, name, since)
        if entry.size > self._limits.max_bytes:
            raise too_large(self._limits)
        if kind == "tar.gz":
            record = CompressedTar(container).read(entry.place)
        else:
            record = fetch_part(container, entry.place.start, entry.place.end, given_up)
        found = member_bytes(kind, record, None, entry.size)
        if found is None:
            raise StorageError("its archive is cut, or changes while it is read")
        return found
