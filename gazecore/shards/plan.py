"""The plan: every input image once, cut into shards.

Parts are written one after the other and never changed. A part's Parquet row groups are its shards,
in order; its metadata says which shard is the first. Planning again over the same input appends the
images that are new, in new shards, so a plan whose making was interrupted is simply made again.
"""

import re
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gazecore.errors import DamagedTable, InputError, one_line
from gazecore.shards.directory import ShardedDirectory
from gazecore.storage import Location
from gazecore.tables import required

PLAN = pa.schema(
    [
        required("image_id", pa.string()),
        required("uri", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("version", pa.string()),
        required("shard", pa.int32()),
    ]
)
"""size: bytes; version: ETag or modification time. Both null where the input was a list."""

FIRST = b"gazecore.first_shard"
"""Names the number of a part's first shard in its metadata."""
_PART = re.compile(r"part-\d+\.parquet")


@dataclass(frozen=True)
class Shard:
    """A slice of the plan.

    Attributes:
        number: in the plan.
        images: its rows, schema PLAN.
        is_part: it is done, and `images` are just those that are to be tried again.
    """

    number: int
    images: pa.Table
    is_part: bool = False


@dataclass(frozen=True)
class PlanPart:
    """One file of the plan: where it is, its first shard, and the images in each of its shards."""

    location: Location
    first_shard: int
    sizes: np.ndarray

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.sizes)

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.sizes.sum())


def plan_parts(planned: ShardedDirectory) -> list[PlanPart]:
    """The files of the plan, in order; their footers are read, not their rows.

    Raises:
        InputError: one of them is damaged.
    """
    parts = [plan_part(planned.plan / name) for name in part_names(planned)]
    parts.sort(key=lambda part: part.first_shard)
    ends = np.cumsum([0, *(part.shards for part in parts)], dtype=int)
    if [part.first_shard for part in parts] != ends[:-1].tolist():
        raise InputError(f"{planned.plan.uri} lacks one of its parts")
    return parts


def part_names(planned: ShardedDirectory) -> list[str]:
    """Names of the plan's files, in order."""
    return [name for name in planned.plan.names() if _PART.fullmatch(name)]


def plan_part(location: Location) -> PlanPart:
    """One file of the plan, by its footer. Raises DamagedTable."""
    for attempt in location.reads():
        with attempt, location.fs.open(location.path, "rb") as file:
            try:
                metadata = pq.read_metadata(file)
                first = int(metadata.metadata[FIRST])
                groups = range(metadata.num_row_groups)
                sizes = np.array([metadata.row_group(g).num_rows for g in groups], dtype=np.int32)
                if first < 0 or (sizes < 0).any():
                    raise ValueError("its shards are no numbers")
            except Exception as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of the storage, not of the bytes
                raise DamagedTable(f"{location.uri} is damaged: {one_line(error)}") from error
    return PlanPart(location, first, sizes)


def require_plan(
    planned: ShardedDirectory, parts: Sequence[PlanPart], done: Collection[int]
) -> None:
    """Refuse results that the plan does not name: to plan anew would do images twice.

    Raises:
        InputError: shards are done that no part of the plan holds.
    """
    count = sum(part.shards for part in parts)
    if strangers := sum(number >= count for number in done):
        raise InputError(
            f"{planned.location.uri} has results of {strangers:,} shards that its plan does not "
            "hold: files of its plan are gone; put them back, or use another --out"
        )


def images_in(planned: ShardedDirectory, numbers: Container[int]) -> int:
    """How many images these shards hold."""
    return count_images(plan_parts(planned), numbers)


def count_images(parts: list[PlanPart], numbers: Container[int]) -> int:
    """How many images these shards of a plan hold."""
    return sum(
        int(size)
        for part in parts
        for number, size in enumerate(part.sizes, start=part.first_shard)
        if number in numbers
    )


def shards(
    planned: ShardedDirectory,
    wanted: Callable[[int], bool] = lambda _: True,
    backwards: bool = False,
) -> Iterator[Shard]:
    """The shards of the plan in order; only parts and row groups that are wanted are read.

    Args:
        planned: the directory.
        wanted: by its number, whether a shard is.
        backwards: from the last to the first.
    """
    step = -1 if backwards else 1
    for part in plan_parts(planned)[::step]:
        numbers = range(part.first_shard, part.first_shard + part.shards)
        if not any(wanted(number) for number in numbers):
            continue
        read = part_reader(part)
        yield from (read(number) for number in numbers[::step] if wanted(number))


def part_reader(part: PlanPart) -> Callable[[int], Shard]:
    """Read a file of the plan; returns what gives a shard of it by its number.

    Both raise DamagedTable where what they read is damaged.
    """
    file = part.location.read_parquet(lambda file: file)

    def read(number: int) -> Shard:
        with part.location.refusing_damage():
            images = file.read_row_group(number - part.first_shard, use_threads=False)
            if images.schema.types != PLAN.types or images.schema.names != PLAN.names:
                raise ValueError(f"its columns are {images.schema}")
        return Shard(number, images)

    return read
