"""Which image of a run is compared with which of another."""

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from gazecore.errors import InputError, one_line
from gazecore.images.lists import dialect_of
from gazecore.results.run import Run
from gazecore.results.schema import SCORES, read_densities
from gazecore.results.stream import StoredDensity, densities_in
from gazecore.shards.directory import shard_name
from gazecore.storage import Location
from gazecore.tables import read_table

_SHARDS_HELD = 4


@dataclass(frozen=True)
class Scored:
    """What a run has of an image: its row of scores, and its density."""

    scores: dict[str, Any]
    density: StoredDensity


class ScoredImages:
    """The images of a run that have a density; whole shards are read, and the last few are kept."""

    def __init__(self, run: Run) -> None:
        """Read which images are in which shard; some 200 bytes of memory an image."""
        self._run = run
        self._shard: dict[str, int] = {}
        for shard in sorted(run.shards_done()):
            table = read_table(run.scores / shard_name(shard), SCORES, ["image_id", "status"])
            ids = table.filter(pc.field("status") == "ok")["image_id"].to_pylist()
            self._shard |= dict.fromkeys(ids, shard)
        self._rows = functools.lru_cache(_SHARDS_HELD)(self._read)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._shard

    def __len__(self) -> int:
        return len(self._shard)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shard)

    def of(self, image_id: str) -> Scored:
        """What the run has of one of its images."""
        scores, densities, place = self._rows(self._shard[image_id])
        at_scores, at_density = place[image_id]
        [row] = scores.slice(at_scores, 1).to_pylist()
        [density] = densities_in(densities.slice(at_density, 1))
        return Scored(row, density)

    def _read(self, shard: int) -> tuple[pa.Table, pa.Table, dict[str, tuple[int, int]]]:
        name = shard_name(shard)
        scores = read_table(self._run.scores / name, self._run.schema)
        densities = read_densities(self._run.densities / name)
        rows = {image_id: i for i, image_id in enumerate(scores["image_id"].to_pylist())}
        ids = densities["image_id"].to_pylist()
        if missing := {i for i in rows if self._shard.get(i) == shard}.difference(ids):
            where = f"{self._run.densities.uri}/{name}"
            raise InputError(f"{where} lacks the density of {min(missing)}: `gazecore verify`")
        return scores, densities, {i: (rows[i], at) for at, i in enumerate(ids) if i in rows}


Pairs = list[tuple[str, str]]
"""An image of the first run and one of the second."""


def pair(first: ScoredImages, second: ScoredImages, match: Location | None) -> Pairs:
    """The pairs of images that both runs have densities of, in the order of the first run.

    Args:
        first, second: of both runs.
        match: a table of pairs, with the columns `a` and `b`, image ids of the first and the second
            run; None: images of one image_id.

    Raises:
        InputError: the table cannot be read, names an image twice, or no pair remains.
    """
    if match is None:
        found = [(image_id, image_id) for image_id in first if image_id in second]
        how = "by image_id; --match FILE says which image is which"
    else:
        wanted = _read_match(match)
        found = [(a, wanted[a]) for a in first if a in wanted and wanted[a] in second]
        how = f"by {match.uri}"
    if not found:
        one, other = (next(iter(images), "nothing") for images in (first, second))
        raise InputError(
            f"the runs have no image in common, {how}: the first has {one!r}, the second {other!r}"
        )
    return found


def _read_match(location: Location) -> dict[str, str]:
    try:
        if location.path.lower().endswith(".parquet"):
            table = location.read_table()
        else:
            data = location.read_bytes()
            dialect = dialect_of(data[: 2**16], ",", {"a", "b"})
            table = pa.csv.read_csv(
                pa.BufferReader(data),
                read_options=dialect.read_options(),
                parse_options=pa.csv.ParseOptions(delimiter=dialect.delimiter),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(dialect.names, pa.string())
                ),
            )
        if missing := [name for name in ("a", "b") if table.column_names.count(name) != 1]:
            raise InputError(
                f"{location.uri} has no single column {', '.join(missing)}: pairs are `a`, the "
                "image_id in the first run, and `b`, that in the second"
            )
        a, b = (table[name].cast(pa.string()).to_pylist() for name in ("a", "b"))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{location.uri} cannot be read: {one_line(error)}") from error
    for ids in (a, b):
        [(most, count)] = Counter(ids).most_common(1) or [(None, 0)]
        if count > 1:
            raise InputError(f"{location.uri} names {most!r} {count:,} times in one column")
    return dict(zip(a, b, strict=True))
