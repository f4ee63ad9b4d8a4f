"""Which images of shards that are done are taken up again: they failed, changed, or were named."""

import itertools
from collections import Counter
from collections.abc import Collection, Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from gazecore.errors import InputError, one_line
from gazecore.results.files import READERS
from gazecore.results.run import Run
from gazecore.results.status import error_counts
from gazecore.results.write import read_scores
from gazecore.shards.plan import CHANGED, GONE, PLAN, Shard, as_of, plan_parts, shards
from gazecore.shards.revising import read_part
from gazecore.shards.tally import OK
from gazecore.storage import Location
from gazecore.tables import read_table

_SHARDS_HELD = 64


@dataclass(frozen=True)
class Again:
    """Which images of shards that are done are taken up again.

    Attributes:
        failed: shards with images that failed, and how many; None: nobody asked for those.
        outdated: shards with images, others than those, whose rows are as of another version than
            the plan knows now: how many `changed`, and are `gone`. None: likewise.
        asked: images that were named, by the shard that they are in.
    """

    failed: Mapping[int, int] | None = None
    outdated: Mapping[int, Counter[str]] | None = None
    asked: Mapping[int, frozenset[str]] = field(default_factory=dict)

    def counts(self) -> Counter[int]:
        """How many images of each shard."""
        named = {number: len(ids) for number, ids in self.asked.items()}
        outdated = {number: of.total() for number, of in (self.outdated or {}).items()}
        return Counter(self.failed or {}) + Counter(outdated) + Counter(named)

    def total(self) -> int:
        """How many images."""
        return self.counts().total()


def failed_images(run: Run) -> dict[int, int]:
    """The shards that hold failed rows, and how many. Raises InputError where one is damaged."""
    counted = error_counts(run, sorted(run.shards_done()))
    failed = {number: counts.total() - counts[OK] - counts[GONE] for number, counts in counted}
    return {number: count for number, count in failed.items() if count}


def failed_ids(run: Run, numbers: Collection[int]) -> list[str]:
    """The images that failed in these shards, which are done. Raises InputError likewise."""

    def ids(number: int) -> set[str]:
        return _failed(read_scores(run, number)[0])

    with ThreadPoolExecutor(READERS) as pool:
        return [image_id for found in pool.map(ids, sorted(numbers)) for image_id in found]


def outdated_images(run: Run, failed: Container[int] = ()) -> dict[int, Counter[str]]:
    """The shards that are done with rows as of another version than the plan knows now, and how
    many of their images `changed` or are `gone`. Of the plan, parts that were revised are read, and
    the scores of the shards in them that hold such images. In the shards of `failed`, those that
    failed are not counted.

    Raises:
        InputError: a file is damaged.
    """
    done = run.shards_done()
    found: dict[int, Counter[str]] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for part in plan_parts(run):
            if not part.is_revised:
                continue
            table = read_part(part)
            table = table.filter(table["became"].is_valid())
            numbers = sorted(set(table["shard"].to_pylist()) & done)

            def count(number: int, table: pa.Table = table) -> Counter[str]:
                now = as_of(table.filter(pc.field("shard") == number))
                rows, before = read_scores(run, number)
                ids = _outdated(now, before)
                ids -= _failed(rows) if number in failed else set()
                return Counter(GONE if now[i] == GONE else CHANGED for i in ids)

            found.update(zip(numbers, pool.map(count, numbers), strict=True))
    return {number: of for number, of in found.items() if of}


def _outdated(now: Mapping[str, str], before: Mapping[str, str]) -> set[str]:
    return {image_id for image_id, text in now.items() if before.get(image_id) != text}


def _failed(rows: pa.Table) -> set[str]:
    return set(rows.filter(pc.field("status") == "failed")["image_id"].to_pylist())


def read_names(source: str) -> list[str]:
    """The lines of a text file that are not empty; a first one that says `image_id` or `uri`, as a
    table's, is left out. Raises InputError where it cannot be read or names nothing."""
    try:
        text = Location(source).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list {source}: {one_line(error)}") from error
    names = [name for line in text.splitlines() if (name := line.strip())]
    if not (names := names[1:] if names[:1] in (["image_id"], ["uri"]) else names):
        raise InputError(f"{source} names no image: give an image_id or a URI on each line")
    return names


def asked_images(run: Run, names: Collection[str]) -> dict[int, frozenset[str]]:
    """The images of these ids or URIs (or local paths), by the shard that they are in.

    Raises:
        InputError: there is one that the run has not.
    """
    wanted = {name: name for name in names}
    wanted |= {Location(name).uri: name for name in names if "://" not in name}
    found: dict[int, set[str]] = {}
    missing = set(names)
    values = pa.array(list(wanted), pa.string())
    for part in plan_parts(run):
        table = read_table(part.location, PLAN, ["image_id", "uri", "shard"])
        is_meant = [pc.is_in(table[name], value_set=values) for name in ("image_id", "uri")]
        for row in table.filter(pc.or_(*is_meant)).to_pylist():
            found.setdefault(row["shard"], set()).add(row["image_id"])
            missing -= {wanted.get(row["image_id"]), wanted.get(row["uri"])}
    if missing:
        raise InputError(
            f"{run.location.uri} has no image {min(missing)!r} ({len(missing):,} of {len(names):,} "
            "names are of none): give ids or URIs as they are in its scores"
        )
    return {number: frozenset(ids) for number, ids in found.items()}


def parts_again(run: Run, again: Again) -> Iterator[Shard]:
    """Of shards of the plan that are done, the images to take up again; a few shards are held.

    The sizes of images that failed or were named are left out: an object that was mended has
    another one than was planned, and one that was planned as empty or too large would not even be
    asked for.
    """

    def part(shard: Shard) -> Shard | None:
        try:
            rows, before = read_scores(run, shard.number)
        except FileNotFoundError:
            return None  # it could not be done: the next run does it with all of its images
        outdated = _outdated(shard.as_of, before) if again.outdated is not None else set()
        asked = again.asked.get(shard.number, frozenset())
        ids = outdated | asked
        if shard.number in (again.failed or {}):
            ids |= _failed(rows)
        planned = shard.images["image_id"].to_pylist()
        images = shard.images.filter(pa.array([i in ids for i in planned], pa.bool_()))
        is_known = pc.is_in(images["image_id"], value_set=pa.array(list(outdated), pa.string()))
        sizes = pc.if_else(is_known, images["size"], pa.scalar(None, pa.int64()))
        column = images.schema.get_field_index("size")
        images = images.set_column(column, PLAN.field("size"), sizes)
        # One that is gone and was named is looked for all the same.
        now = {
            image_id: text
            for image_id, text in shard.as_of.items()
            if image_id in ids and (image_id not in asked or text != GONE)
        }
        return replace(shard, images=images, is_part=True, as_of=now, asked=asked)

    wanted = shards(run, again.counts().__contains__)
    with ThreadPoolExecutor(READERS) as pool:
        while some := list(itertools.islice(wanted, _SHARDS_HELD)):
            # One without such rows was mended by another driver meanwhile.
            found = pool.map(part, some)
            yield from (made for made in found if made is not None and made.images.num_rows)
