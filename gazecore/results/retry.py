"""Which images failed, so that they can be tried again."""

import itertools
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from gazecore.results.files import READERS, Object
from gazecore.results.run import Run
from gazecore.results.schema import SCORES
from gazecore.results.status import error_counts
from gazecore.shards.directory import shard_name
from gazecore.shards.plan import PLAN, Shard, shards
from gazecore.shards.tally import OK
from gazecore.tables import read_table

_SHARDS_HELD = 64


def failed_images(run: Run) -> dict[int, int]:
    """The shards that hold failed rows, and how many. Raises InputError where one is damaged."""
    counted = error_counts(run, sorted(run.shards_done()))
    failed = {number: counts.total() - counts[OK] for number, counts in counted}
    return {number: count for number, count in failed.items() if count}


def failed_parts(run: Run, numbers: Container[int]) -> Iterator[Shard]:
    """Of these shards of the plan, which are done, the images that failed; a few shards are held.

    Their sizes are left out: an object that was mended has another one than was planned, and one
    that was planned as empty or too large would not even be asked for.
    """

    def failed(shard: Shard) -> Shard:
        where = Object(run.scores / shard_name(shard.number))
        rows = read_table(where, SCORES, ["image_id", "status"])
        ids = rows.filter(pc.field("status") == "failed")["image_id"]
        images = shard.images.filter(pc.is_in(shard.images["image_id"], value_set=ids))
        column = images.schema.get_field_index("size")
        nothing = pa.nulls(images.num_rows, pa.int64())
        return Shard(shard.number, images.set_column(column, PLAN.field("size"), nothing), True)

    wanted = shards(run, numbers.__contains__)
    with ThreadPoolExecutor(READERS) as pool:
        while some := list(itertools.islice(wanted, _SHARDS_HELD)):
            # One without failed rows was mended by another driver meanwhile.
            yield from (part for part in pool.map(failed, some) if part.images.num_rows)
