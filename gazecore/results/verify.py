"""Does a run directory hold what it promises?"""

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gazecore.density.codec import decode
from gazecore.errors import InputError, one_line
from gazecore.results import noticed, times
from gazecore.results.compacted import (
    COMPACTED,
    TABLES,
    Table,
    home,
    identity,
    part_schema,
    parts_folder,
    read_compaction,
    shard_files,
)
from gazecore.results.database import database, parquet, said
from gazecore.results.files import list_files
from gazecore.results.run import Run
from gazecore.results.schema import DENSITIES, SCORES, read_densities
from gazecore.results.write import read_scores
from gazecore.shards.directory import DIGEST, digest, shard_name, shard_numbers
from gazecore.shards.plan import (
    GONE,
    PlanPart,
    Shard,
    part_names,
    part_reader,
    plan_part,
)
from gazecore.storage import Location
from gazecore.wording import counted

_ROUNDING = 1e-3
"""What float32 and the density's grid may add to a value at the end of its range."""

MAX_BITS = 1000.0
"""No information or disagreement is larger: a log density of -700 is zero."""


def problems(run: Run) -> Iterator[str]:
    """Check everything, shard by shard; yields a line for each thing that is wrong.

    Every planned image has exactly one row, in its own shard, with the planned URI; statuses and
    errors agree; statistics are within their ranges (docs/results-format.md); each `ok` image and
    no other has a density; densities are normalised; sizes agree; no file is left over; all values
    agree with the checksums of their pages, where the file has any; what is compacted agrees with
    the shards. Checksums do not cover what a footer says of a column's smallest and largest value.

    A file that is damaged is one line, and the rest is checked.
    """
    yield from _marker(run)
    parts: list[PlanPart] = []
    is_whole = True
    for name in part_names(run):
        try:
            parts.append(plan_part(run.plan / name))
        except (OSError, InputError) as error:
            yield one_line(error)
            is_whole = False
    parts.sort(key=lambda part: part.first_shard)
    ends = np.cumsum([0, *(part.shards for part in parts)], dtype=int)
    if is_whole and [part.first_shard for part in parts] != ends[:-1].tolist():
        yield f"{run.plan.uri} lacks one of its parts"
        is_whole = False
    if is_whole and not ends[-1]:
        yield "the plan is empty"
    done, stored = run.shards_done(), shard_numbers(run.densities.names())
    hashes = []
    for part in parts:
        try:
            read = part_reader(part)
        except (OSError, InputError) as error:
            yield one_line(error)
            continue
        for number in range(part.first_shard, part.first_shard + part.shards):
            try:
                shard = read(number)
            except InputError as error:
                yield one_line(error)
                continue
            yield from _planned_problems(part, shard)
            ids = shard.images["image_id"].to_pylist()
            hashes.append(np.fromiter((hash(i) for i in ids), dtype=np.int64))
            if number not in done:
                words = counted(len(ids), "images")
                yield f"scores/{shard_name(number)} is missing: {words} not scored"
            elif number not in stored:
                yield f"densities/{shard_name(number)} is missing"
            else:
                yield from _shard_problems(run, shard)
    # Images that the plan names twice are found by hash, so that memory stays small.
    every = np.sort(np.concatenate(hashes)) if hashes else np.empty(0, dtype=np.int64)
    if twice := int((every[1:] == every[:-1]).sum()):
        yield f"the plan names {counted(twice, 'images')} more than once"
    for table in TABLES:
        yield from _compacted_problems(run, table)
    if is_whole:
        yield from _strays(run, range(int(ends[-1])))


def _marker(run: Run) -> Iterator[str]:
    content = json.loads((run.location / "run.json").read_bytes())  # it could be opened
    if DIGEST in content and content[DIGEST] != digest(content):
        yield "run.json is not as it was written"


def _planned_problems(part: PlanPart, shard: Shard) -> Iterator[str]:
    images = shard.images
    if any(images[name].null_count for name in ("image_id", "uri", "shard")):
        yield f"{part.location.uri}: a row of shard {shard.number} lacks a value"
    if images["shard"].to_pylist() != [shard.number] * images.num_rows:
        yield f"{part.location.uri}: rows of shard {shard.number} name another"


def _shard_problems(run: Run, shard: Shard) -> Iterator[str]:
    name = shard_name(shard.number)
    tables = []
    for folder, schema in ((run.scores, run.schema), (run.densities, DENSITIES)):
        try:
            if schema is DENSITIES:
                tables.append(read_densities(folder / name))
            else:
                table, before = read_scores(run, shard.number)
                tables.append(table)
            yield from _column_problems(folder / name, schema)
        except (OSError, InputError) as error:
            yield one_line(error)
    if len(tables) < 2:
        return
    scores, densities = tables
    left = {i for i, now in shard.as_of.items() if before.get(i) != now}
    if left:
        yield (
            f"scores/{name} has {counted(len(left), 'rows')} of images that changed or are gone: a "
            "rescan was not finished; `gazecore score --rescan` goes on"
        )
    for column in ("image_id", "uri"):
        if scores[column] != shard.images[column]:
            yield f"scores/{name}: its {column}s are not those of the plan"
    ids = scores["image_id"].to_pylist()
    for row in np.flatnonzero(~_sound(scores)):
        yield f"scores/{name}: the row of {ids[row]} contradicts itself, or holds what cannot be"
    rows = scores.select(["image_id", "status", "height", "width"]).to_pylist()
    sizes = {r["image_id"]: (r["height"], r["width"]) for r in rows if r["status"] == "ok"}
    stored = densities["image_id"].to_pylist()
    early = {i for i in stored if i in set(ids) and i not in sizes}
    if [i for i in stored if i not in early] != list(sizes):
        yield f"densities/{name}: its images are not the `ok` ones of the scores"
        return
    if early - left:
        yield (
            f"densities/{name} has {counted(len(early - left), 'densities')} of images that are "
            "`failed` in the scores: a retry was interrupted; `gazecore score --retry-failed` "
            "mends it"
        )
    for row in densities.to_pylist():
        if row["image_id"] not in early:
            where = f"densities/{name}: {row['image_id']}"
            values = np.array(row["log_density"], dtype=np.int16)
            with np.errstate(over="ignore", invalid="ignore"):
                total = float(np.exp(decode(values, row["log_offset"])).sum())
            if not abs(total - 1) < 1e-6:
                yield f"{where} sums to {total:.6g}, not 1"
            elif row["image_id"] in left:
                continue  # its density goes before its row
            elif sizes[row["image_id"]] != (row["height"], row["width"]):
                yield f"{where} has another size than its scores"


def _sound(scores: pa.Table) -> np.ndarray:
    """Whether each row is what a row of its status can be; bool (rows,)."""

    def column(name: str) -> np.ndarray:
        values: np.ndarray = scores[name].cast(pa.float64()).fill_null(np.nan).to_numpy()
        return values

    def present(name: str) -> np.ndarray:
        values: np.ndarray = scores[name].is_valid().to_numpy()
        return values

    numbers = [f.name for f in SCORES if pa.types.is_floating(f.type) or f.name == "n_peaks"]
    value = {name: column(name) for name in (*numbers, "height", "width")}
    height, width = value["height"], value["width"]
    ranges = {
        "information_bits": (0, MAX_BITS),
        "concentration_bits": (0, MAX_BITS),
        "peak_x": (0, width), "peak_y": (0, height), "mean_x": (0, width), "mean_y": (0, height),
        "std_x": (0, width), "std_y": (0, height),
        "area_50": (0, 1), "area_90": (value["area_50"], 1), "center_mass": (0, 1),
        "n_peaks": (1, 2**15),
        "cov_xy": (-value["std_x"] * value["std_y"], value["std_x"] * value["std_y"]),
    }  # fmt: skip
    is_ok = (height >= 1) & (width >= 1)
    for name, ends in ranges.items():
        low, high = (np.nan_to_num(end, nan=0, posinf=0, neginf=0) for end in ends)
        room = _ROUNDING * (1 + np.abs(low)), _ROUNDING * (1 + np.abs(high))
        # Comparisons with NaN are false, so that what is null or no number is not sound.
        is_ok &= (value[name] >= low - room[0]) & (value[name] <= high + room[1])
    unsure = value["disagreement_bits"]
    is_ok &= ~present("disagreement_bits") | ((unsure >= -_ROUNDING) & (unsure <= MAX_BITS))
    is_ok &= ~present("error") & ~present("error_message")
    if "peaks" in scores.column_names:
        is_ok &= _sound_peaks(scores)
    has_failed = np.ones(len(is_ok), dtype=bool)
    for name in (*numbers, *({"peaks"} & set(scores.column_names))):
        has_failed &= ~present(name)
    for name in ("error", "error_message"):
        has_failed &= np.array([bool(text) for text in scores[name].to_pylist()], dtype=bool)
    status = np.array(scores["status"].to_pylist(), dtype=object)
    error = np.array(scores["error"].to_pylist(), dtype=object)
    has_failed &= ((status == "failed") & (error != GONE)) | ((status == GONE) & (error == GONE))
    sound: np.ndarray = np.where(status == "ok", is_ok, has_failed)
    return sound


def _sound_peaks(scores: pa.Table) -> np.ndarray:
    """Whether each row's peaks are as many as it says, the highest first at its mode, in the image,
    and share no fixation; bool (rows,)."""
    names = ["peaks", "n_peaks", "peak_x", "peak_y", "height", "width"]

    def is_sound(row: dict[str, Any]) -> bool:
        peaks = row["peaks"]
        if not peaks or len(peaks) != row["n_peaks"]:
            return False
        values = np.array([list(p.values()) if p else [None] * 4 for p in peaks], dtype=float)
        x, y, heights, shares = values.T
        room = 1 + _ROUNDING
        return bool(
            (x[0], y[0], heights[0]) == (row["peak_x"], row["peak_y"], 1)
            and (np.diff(heights) <= 0).all()
            and (values >= 0).all()
            and (x <= (row["width"] or 0) * room).all()
            and (y <= (row["height"] or 0) * room).all()
            and shares.sum() <= room
        )

    return np.array([is_sound(row) for row in scores.select(names).to_pylist()], dtype=bool)


def _compacted_problems(run: Run, table: Table) -> Iterator[str]:
    """Compacted rows must be those of the shards that are as they were, value for value."""
    try:
        compaction = read_compaction(run, table)
        if compaction is None:
            return
        there = {
            file.name: file.size
            for file in list_files(parts_folder(run, table, compaction.generation))
        }
        for part in compaction.parts:
            if there.get(part.name) != part.size:
                yield f"{part.object.uri} is missing, or of another size than it was"
                return
        beside = shard_files(run, table)
        known = compaction.identities()
        same = {n: file for n, file in beside.items() if known.get(n) == identity(file)}
        schema = part_schema(run, table)
        names = ", ".join(name for name in schema.names if name != "shard")
        rows = f"count(*)::INT, bit_xor(hash({names}))"
        folders = {"parts": compaction.parts, "shards": list(same.values())}
        number = "regexp_extract(filename, 'shard-([0-9]+)', 1)::INT"
        with database(folders) as db:
            found = db.sql(f"SELECT shard, {rows} FROM {parquet('parts')} GROUP BY shard")
            compacted = {shard: rest for shard, *rest in found.fetchall()}
            of_shards = {}
            if same:
                found = db.sql(f"SELECT {number}, {rows} FROM {parquet('shards')} GROUP BY 1")
                of_shards = {shard: rest for shard, *rest in found.fetchall()}
    except (duckdb.Error, OSError, InputError) as error:
        why = said(error) if isinstance(error, duckdb.Error) else one_line(error)
        yield f"compacted {table}: {why}"
        return
    for shard in sorted(same):
        if compacted.get(shard) != of_shards.get(shard):
            yield f"compacted {table} differ from those of {table}/{shard_name(shard)}"
    if sum(count for count, _ in compacted.values()) != compaction.rows:
        yield f"compacted {table} are not as many as were written"


def _column_problems(location: Location, schema: pa.Schema) -> Iterator[str]:
    def columns(file: pq.ParquetFile) -> list[str]:
        names: list[str] = file.schema_arrow.names
        return names

    if (names := location.read_parquet(columns)) != schema.names:
        yield f"{location.uri}: its columns are {', '.join(names)}"


def _strays(run: Run, planned: range) -> Iterator[str]:
    for folder in ("scores", "densities"):
        names = (run.location / folder).names()
        belongs = {shard_name(number) for number in shard_numbers(names) if number in planned}
        for name in names:
            if name not in belongs:
                yield f"{folder}/{name} does not belong to the run"
    parts = set(part_names(run))
    for name in run.plan.names():
        if name not in parts:
            yield f"plan/{name} does not belong to the run"
    own = {"run.json", "plan", "scores", "densities", "compacted", noticed.NAME, times.NAME}
    for name in run.location.names():
        if name not in own:
            yield f"{name} does not belong to the run"
    for name in home(run).names():
        if not COMPACTED.fullmatch(name):
            yield f"compacted/{name} does not belong to the run"
