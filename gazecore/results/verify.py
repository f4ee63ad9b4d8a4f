"""Does a run directory hold what it promises?"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from gazecore.density.codec import decode
from gazecore.errors import InputError, one_line
from gazecore.results.directory import shard_numbers
from gazecore.results.plan import Shard, plan_parts, shards
from gazecore.results.run import Run
from gazecore.results.schema import DENSITIES, SCORES, shard_name
from gazecore.storage import Location
from gazecore.wording import counted


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
            yield f"scores/{name} is missing: {counted(shard.images.num_rows, 'images')} not scored"
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
        yield f"the plan names {counted(twice, 'images')} more than once"


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
    known, stored = set(scores["image_id"].to_pylist()), densities["image_id"].to_pylist()
    early = {i for i in stored if i in known and i not in sizes}
    if [i for i in stored if i not in early] != list(sizes):
        yield f"densities/{name}: its images are not the `ok` ones of the scores"
        return
    if early:
        yield (
            f"densities/{name} has {counted(len(early), 'densities')} of images that are `failed` "
            "in the scores: a retry was interrupted; `gazecore score --retry-failed` mends it"
        )
    for row in densities.to_pylist():
        if row["image_id"] in early:
            continue
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
