"""Does a run directory hold what it promises?"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gazecore.density.codec import decode
from gazecore.errors import InputError, one_line
from gazecore.results.directory import shard_numbers
from gazecore.results.plan import Shard, images_in, plan_parts, shards
from gazecore.results.run import Run
from gazecore.results.schema import DENSITIES, SCORES, shard_name
from gazecore.storage import Location

_RATE_SHARDS = 64


@dataclass(frozen=True)
class Status:
    """How far a run is: counts of images and shards; `errors` maps error classes to counts; `rate`
    is images per second over the shards that were finished last, None before there are two."""

    images: int
    ok: int
    failed: int
    shards: int
    shards_done: int
    errors: dict[str, int]
    rate: float | None

    @property
    def missing(self) -> int:
        """Planned images without a row."""
        return self.images - self.ok - self.failed


def run_status(run: Run) -> Status:
    """Count a run's images; only the column that tells is read."""
    parts = plan_parts(run)
    done = sorted(run.shards_done())
    counts = Counter[str | None]()
    with ThreadPoolExecutor(16) as pool:
        columns = pool.map(lambda n: (run.scores / shard_name(n)).read_table(["error"]), done)
        for errors in columns:
            for value in errors["error"].value_counts().to_pylist():
                counts[value["values"]] += value["counts"]
    ok = counts.pop(None, 0)
    return Status(
        images=sum(part.images for part in parts),
        ok=ok,
        failed=counts.total(),
        shards=sum(part.shards for part in parts),
        shards_done=len(done),
        errors={str(error): count for error, count in counts.most_common()},
        rate=_rate(run),
    )


def _rate(run: Run) -> float | None:
    """Images per second between the commits of the newest shards."""
    times = sorted((when, name) for name, when in run.scores.modified().items())[-_RATE_SHARDS:]
    newer = shard_numbers([name for _, name in times[1:]])
    if not newer or times[-1][0] <= times[0][0]:
        return None
    return images_in(run, newer) / (times[-1][0] - times[0][0])


def problems(run: Run) -> Iterator[str]:
    """Check everything, shard by shard; yields a line for each thing that is wrong.

    Every planned image has exactly one row, in its own shard; statuses and errors agree; each `ok`
    image and no other has a density; densities are normalised; sizes agree; no file is left over.
    """
    try:
        plan_parts(run)
    except InputError as error:
        yield one_line(error)
        return
    done = run.shards_done()
    stored = shard_numbers(run.densities.names())
    planned: set[int] = set()
    total = sum(part.shards for part in plan_parts(run))
    if not total:
        yield "the plan is empty"
    yield from _repeated(run)
    for shard in shards(run):
        planned.add(shard.number)
        name = shard_name(shard.number)
        if shard.number not in done:
            yield f"scores/{name} is missing: {shard.images.num_rows} images are not scored"
        elif shard.number not in stored:
            yield f"densities/{name} is missing"
        else:
            yield from _shard_problems(run, shard)
    yield from _strays(run, planned)


def _repeated(run: Run) -> Iterator[str]:
    """Images that the plan names twice, found by hash so that memory stays small."""
    hashes = [
        np.fromiter((hash(i) for i in shard.images["image_id"].to_pylist()), dtype=np.int64)
        for shard in shards(run)
    ]
    every = np.sort(np.concatenate(hashes)) if hashes else np.empty(0, dtype=np.int64)
    twice = int((every[1:] == every[:-1]).sum())
    if twice:
        yield f"the plan names {twice} images more than once"


def _shard_problems(run: Run, shard: Shard) -> Iterator[str]:
    name = shard_name(shard.number)
    try:
        scores = _table(run.scores / name, SCORES)
        densities = _table(run.densities / name, DENSITIES)
    except (OSError, InputError) as error:
        yield f"{name} cannot be read: {one_line(error)}"
        return
    if scores["image_id"] != shard.images["image_id"]:
        yield f"scores/{name}: its images are not those of the plan"
    rows = scores.to_pylist()
    for row in rows:
        fine = (
            row["error"] is None and row["height"] and row["information_bits"] is not None
            if row["status"] == "ok"
            else row["status"] == "failed" and row["error"] and row["error_message"]
        )
        if not fine:
            yield f"scores/{name}: the row of {row['image_id']} contradicts itself"
    sizes = {r["image_id"]: (r["height"], r["width"]) for r in rows if r["status"] == "ok"}
    if densities["image_id"].to_pylist() != list(sizes):
        yield f"densities/{name}: its images are not the `ok` ones of the scores"
        return
    for row in densities.to_pylist():
        where = f"densities/{name}: {row['image_id']}"
        values = np.array(row["log_density"], dtype=np.int16)
        total = float(np.exp(decode(values, row["log_offset"])).sum())
        if values.size != row["grid_height"] * row["grid_width"]:
            yield f"{where} has {values.size} cells, not {row['grid_height']}x{row['grid_width']}"
        elif not abs(total - 1) < 1e-6:
            yield f"{where} sums to {total:.6g}, not 1"
        elif sizes[row["image_id"]] != (row["height"], row["width"]):
            yield f"{where} has another size than its scores"


def _strays(run: Run, planned: set[int]) -> Iterator[str]:
    names = {shard_name(number) for number in planned}
    for folder, allowed in (("scores", names), ("densities", names)):
        for name in (run.location / folder).names():
            if name not in allowed:
                yield f"{folder}/{name} does not belong to the run"
    parts = {part.location.path.rpartition("/")[2] for part in plan_parts(run)}
    for name in run.plan.names():
        if name not in parts:
            yield f"plan/{name} does not belong to the run"
    for name in run.location.names():
        if name not in {"run.json", "plan", "scores", "densities"}:
            yield f"{name} does not belong to the run"


def _table(location: Location, schema: pa.Schema) -> pa.Table:
    table = location.read_table()
    if table.schema.names != schema.names:
        raise InputError(f"its columns are {', '.join(table.schema.names)}")
    return table
