"""What a page says of a run: distributions, extremes and a sample, asked in bounded memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gazecore.results.query import query
from gazecore.results.run import Run
from gazecore.results.schema import SCORES_OF, read_densities
from gazecore.results.status import Status, run_status
from gazecore.results.stream import StoredDensity, densities_in
from gazecore.shards.directory import shard_name

STATISTICS = (
    "information_bits", "concentration_bits", "area_50", "area_90", "center_mass", "n_peaks",
    "disagreement_bits",
)  # fmt: skip
"""Statistics by which images are ordered."""

EXTREMES = (
    ("information_bits", True), ("information_bits", False), ("area_50", False), ("area_50", True),
    ("center_mass", True), ("center_mass", False), ("n_peaks", True), ("disagreement_bits", True),
)  # fmt: skip
"""A statistic, and whether its highest values are meant or its lowest."""

EXAMPLES = 3
"""Images that are named of each error."""


@dataclass(frozen=True)
class Distribution:
    """A statistic over all images that have it.

    Attributes:
        count: images.
        low, high, mean: of the values.
        median: of more than some thousand images an estimate.
        edges: (n + 1,), the bounds of bins of one width.
        counts: images in each bin.
    """

    count: int
    low: float
    high: float
    mean: float
    median: float
    edges: np.ndarray
    counts: list[int]


@dataclass(frozen=True)
class Overview:
    """What is known of a run.

    Attributes:
        status: of the run.
        failures: an error, how many images ended so, and EXAMPLES of them (image_id, message).
        distributions: by statistic, of STATISTICS; without those that no image has.
        rows: scores and `shard` of the images that are shown, by image_id.
        extremes: for each of EXTREMES the image_ids, the most extreme first.
        sample: image_ids that were drawn at random.
    """

    status: Status
    failures: list[tuple[str, int, list[tuple[str, str]]]]
    distributions: dict[str, Distribution]
    rows: list[dict[str, Any]]
    extremes: list[list[str]]
    sample: list[str]


@dataclass(frozen=True)
class Shown:
    """How many images are shown.

    Attributes:
        images: altogether, at most; of more, the extremes and a random sample.
        extreme: of each kind.
        sample: of the random sample, that are shown by themselves.
        seed: of the sample.
    """

    images: int = 5000
    extreme: int = 8
    sample: int = 12
    seed: int = 0


def overview(run: Run, shown: Shown, bins_for: Any) -> Overview:
    """Ask a run, finished or not, compacted or not.

    Args:
        run: which.
        shown: how many images.
        bins_for: how many bins show a number of images.

    Raises:
        InputError: nothing has been scored, or a file is damaged.
    """
    status = run_status(run)
    distributions = _distributions(run, bins_for)
    extreme, drawn = _chosen(run, shown)
    rows = _rows(run, {*drawn[: shown.images], *(key for keys in extreme for key in keys)})
    by_key = {row.pop("key"): row for row in rows}
    return Overview(
        status,
        _failures(run),
        distributions,
        sorted(by_key.values(), key=lambda row: str(row["image_id"])),
        [[by_key[key]["image_id"] for key in keys if key in by_key] for keys in extreme],
        [by_key[k]["image_id"] for k in drawn if by_key.get(k, {}).get("status") == "ok"][
            : shown.sample
        ],
    )


def densities_of(run: Run, rows: Sequence[Mapping[str, Any]]) -> Iterator[StoredDensity]:
    """The densities of some of `Overview.rows`, a shard at a time."""
    wanted: dict[int, set[str]] = {}
    for row in rows:
        if row["status"] == "ok":
            wanted.setdefault(row["shard"], set()).add(row["image_id"])
    for shard in sorted(wanted):
        where = run.densities / shard_name(shard)
        for density in densities_in(read_densities(where)) if where.exists() else ():
            if density.image_id in wanted[shard]:
                yield density


def _finite(name: str) -> str:
    return f"CASE WHEN status = 'ok' AND isfinite({name}) THEN {name} END"


def _distributions(run: Run, bins_for: Any) -> dict[str, Distribution]:
    asked = ", ".join(
        f"{f}({_finite(s)}{more})::DOUBLE AS {s}_{name}"
        for s in STATISTICS
        for name, f, more in (
            ("count", "count", ""), ("low", "min", ""), ("high", "max", ""), ("mean", "avg", ""),
            ("median", "approx_quantile", ", 0.5"),
        )
    )  # fmt: skip
    [found] = query(run, f"SELECT {asked} FROM scores").to_pylist()
    known = [name for name in STATISTICS if found[f"{name}_count"]]
    edges = {
        name: _edges(name, found[f"{name}_low"], found[f"{name}_high"],
                     bins_for(int(found[f"{name}_count"])))
        for name in known
    }  # fmt: skip
    if not known:
        return {}
    asked = ", ".join(  # `least` takes null for nothing to compare: it stays outside
        f"histogram(CASE WHEN {_finite(name)} IS NOT NULL THEN least(floor(({name}::DOUBLE - "
        f"{float(e[0])!r}::DOUBLE) / {float(e[1] - e[0])!r}::DOUBLE), {len(e) - 2})::INTEGER END) "
        f"AS {name}"
        for name, e in edges.items()
    )
    [binned] = query(run, f"SELECT {asked} FROM scores").to_pylist()
    return {
        name: Distribution(
            count=int(found[f"{name}_count"]),
            **{what: found[f"{name}_{what}"] for what in ("low", "high", "mean", "median")},
            edges=e,
            counts=[dict(binned[name]).get(number, 0) for number in range(len(e) - 1)],
        )
        for name, e in edges.items()
    }


def _edges(name: str, low: float, high: float, bins: int) -> np.ndarray:
    if name == "n_peaks":  # whole numbers, each in the middle of a bin
        width = max(1, round((high - low + 1) / 40))
        return np.arange(low - 0.5, high + width + 0.5, width)[: int((high - low) // width) + 2]
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        room = max(abs(low), 1.0) * 0.05
        return np.array([low - room, low + room])
    return np.linspace(low, high, bins + 1)


def _chosen(run: Run, shown: Shown) -> tuple[list[list[str]], list[str]]:
    """Keys of the extreme images, and of those that were drawn: failed ones first, so that what
    went wrong is found, but no more than a quarter."""
    columns = ", ".join(f"{_finite(name)} AS {name}" for name in STATISTICS)
    rows = f"SELECT md5(image_id) AS key, status, {columns} FROM scores WHERE status <> 'gone'"
    lists = [
        f"(SELECT {number} AS list, key, {name}::DOUBLE AS value FROM s WHERE {name} IS NOT NULL "
        f"ORDER BY {name} {'DESC' if highest else 'ASC'}, key LIMIT {shown.extreme})"
        for number, (name, highest) in enumerate(EXTREMES)
    ]
    order = f"md5(key || ':{shown.seed}')"
    for number, which, limit in (
        (-1, "status <> 'ok'", max(1, shown.images // 4)), (-2, "true", shown.images),
    ):  # fmt: skip
        lists.append(
            f"(SELECT {number} AS list, {order} || key AS key, 0::DOUBLE AS value FROM s "
            f"WHERE {which} ORDER BY {order} LIMIT {limit})"
        )
    sql = f"WITH s AS MATERIALIZED ({rows}) {' UNION ALL '.join(lists)}"
    found: dict[int, list[tuple[float, str]]] = {}
    for row in query(run, sql).to_pylist():
        value = row["value"]
        is_highest = row["list"] >= 0 and EXTREMES[row["list"]][1]
        found.setdefault(row["list"], []).append((-value if is_highest else value, row["key"]))
    keys = {number: [key for _, key in sorted(pairs)] for number, pairs in found.items()}
    drawn = [key[32:] for number in (-1, -2) for key in keys.get(number, [])]
    return [keys.get(n, []) for n in range(len(EXTREMES))], list(dict.fromkeys(drawn))


def _rows(run: Run, keys: set[str]) -> list[dict[str, Any]]:
    """Of the images of these keys, their scores and the shard that holds them. Keys are digests:
    so no name of others stands in the question."""
    if not keys:
        return []
    some = ", ".join(f"'{key}'" for key in sorted(keys))
    wanted = f"WHERE md5(image_id) IN ({some})"
    columns = ", ".join(
        SCORES_OF[run.version].names
    )  # what was kept of the input can be called key
    found = query(run, f"SELECT md5(image_id) AS key, {columns} FROM scores {wanted}").to_pylist()
    planned = query(run, f"SELECT image_id, shard FROM plan {wanted}")
    shards = dict(zip(*(planned[name].to_pylist() for name in ("image_id", "shard")), strict=True))
    return [{**row, "shard": shards.get(row["image_id"], -1)} for row in found]


def _failures(run: Run) -> list[tuple[str, int, list[tuple[str, str]]]]:
    example = "{'id': image_id, 'message': coalesce(error_message, '')}"
    sql = (
        f"SELECT coalesce(error, '') AS error, count(*) AS images, "
        f"arg_min({example}, image_id, {EXAMPLES}) AS examples FROM scores "
        "WHERE status = 'failed' GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return [
        (row["error"], row["images"], [(one["id"], one["message"]) for one in row["examples"]])
        for row in query(run, sql).to_pylist()
    ]
