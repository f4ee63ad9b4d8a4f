"""The plan: every input image once, cut into shards.

Parts are written one after the other. A part's Parquet row groups are its shards, in order; its
metadata says which shard is the first. Planning again over the same input appends the images that
are new, in new shards, so a plan whose making was interrupted is simply made again. Which images a
part has, and where, never changes; what was revised of them since is said by one more column
(`shards.revising`), and then the part is replaced as a whole.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gazecore.errors import DamagedTable, InputError, one_line
from gazecore.images.kept import KEPT as _KEPT
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

KEPT = pa.field("kept", _KEPT)
"""A part whose images' rows in the input have columns that are carried along has them last."""

CHANGED, GONE = "changed", "gone"
"""What became of a planned image: it was overwritten, or is no longer in the input."""

REVISED = PLAN.append(pa.field("became", pa.string()))
"""A part of which images were revised: size and version are the newer ones, and `became` says what
happened; null for images that are as they were planned."""


def schema_with(names: Collection[str]) -> pa.Schema:
    """A part's schema, with those of the columns that it may have which are named."""
    schema = REVISED if "became" in names else PLAN
    return schema.append(KEPT) if KEPT.name in names else schema


FIRST = b"gazecore.first_shard"
"""Names the number of a part's first shard in its metadata."""
_PART = re.compile(r"part-\d+\.parquet")


@dataclass(frozen=True)
class Shard:
    """A slice of the plan.

    Attributes:
        number: in the plan.
        images: its rows, schema PLAN, and KEPT if they have it.
        is_part: it is done, and `images` are just those that are to be tried again.
        as_of: what `as_of` gives for those of the images that were revised.
        asked: images of a part whose rows are replaced whatever they are.
    """

    number: int
    images: pa.Table
    is_part: bool = False
    as_of: Mapping[str, str] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()

    @property
    def gone(self) -> frozenset[str]:
        """Images that are not read, since they are no longer in the input."""
        return frozenset(image_id for image_id, now in self.as_of.items() if now == GONE)


@dataclass(frozen=True)
class PlanPart:
    """One file of the plan: where it is, its first shard, the images in each of its shards, and
    whether any of them were revised."""

    location: Location
    first_shard: int
    sizes: np.ndarray
    is_revised: bool = False

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
                is_revised = "became" in metadata.schema.names
            except Exception as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of the storage, not of the bytes
                raise DamagedTable(f"{location.uri} is damaged: {one_line(error)}") from error
    return PlanPart(location, first, sizes, is_revised)


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
            kind = schema_with(images.schema.names)
            if images.schema.types != kind.types or images.schema.names != kind.names:
                raise ValueError(f"its columns are {images.schema}")
        names = [name for name in images.schema.names if name != "became"]
        return Shard(number, images.select(names), as_of=as_of(images))

    return read


def as_of(images: pa.Table) -> dict[str, str]:
    """Of the images that were revised, what their rows are to be as of: GONE, or what tells the
    image's present version from others; `images` has the columns of PLAN or REVISED."""
    if "became" not in images.column_names:
        return {}
    columns = (images[name].to_pylist() for name in ("image_id", "size", "version", "became"))
    return {
        image_id: GONE if became == GONE else _digest(size, version)
        for image_id, size, version, became in zip(*columns, strict=True)
        if became
    }


def _digest(size: int | None, version: str | None) -> str:
    return hashlib.blake2b(f"{size} {version}".encode(), digest_size=8).hexdigest()
