"""How far a run is, counted once or again and again while it goes on."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gazecore.errors import GazecoreError
from gazecore.results.compacted import compacted_counts, shard_files
from gazecore.results.files import READERS, File, Object
from gazecore.results.rate import begin_time, commit_rate
from gazecore.results.run import Run
from gazecore.results.schema import SCORES
from gazecore.shards.directory import ShardedDirectory, shard_name
from gazecore.shards.plan import GONE, PlanPart, plan_parts, require_plan
from gazecore.shards.tally import OK
from gazecore.tables import read_table

_FILES_HELD, _FEW = 1024, 32
_SUMMED = 4096


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        images, shards: planned.
        ok, failed, gone: images by the status of their row.
        shards_done: shards that have rows.
        errors: failed images by error class, the most frequent first.
        rate: images per second of late; None: not known yet.
        last_commit: when the newest of them was finished, seconds since 1970; None: not known.
    """

    images: int
    ok: int
    failed: int
    shards: int
    shards_done: int
    errors: dict[str, int]
    rate: float | None
    last_commit: float | None
    gone: int = 0

    @property
    def missing(self) -> int:
        """Planned images without a row."""
        return self.images - self.ok - self.failed - self.gone

    @property
    def is_complete(self) -> bool:
        """Whether every planned image has a row, and there are some."""
        return self.images > 0 and not self.missing


class RunCounter:
    """Counts a run's images. Counting again reads the files that are new or were replaced."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._begun = begin_time(run)
        self._plan: list[str] = []
        self._parts: list[PlanPart] = []
        self._written: dict[int, float] = {}
        self._counts: dict[int, Counter[str]] = {}
        self._total = Counter[str]()

    def status(self) -> Status:
        """Count. Raises InputError where a file is damaged, or the plan is gone."""
        files = shard_files(self._run, "scores")
        written = {number: file.written or 0.0 for number, file in files.items()}
        # After the scores: what is planned and scored meanwhile is missed, and not unplanned.
        if (plan := self._run.plan.names()) != self._plan:
            self._plan, self._parts = plan, plan_parts(self._run)
        require_plan(self._run, self._parts, written)
        new = [number for number, when in written.items() if self._written.get(number) != when]
        for number, counts in error_counts(self._run, new, files):
            self._total.subtract(self._counts.get(number, {}))
            self._total.update(counts)
            self._counts[number] = counts
        self._written = written
        failed = {
            error: n for error, n in self._total.most_common() if error not in (OK, GONE) and n
        }
        return Status(
            images=sum(part.images for part in self._parts),
            ok=self._total[OK],
            failed=sum(failed.values()),
            shards=sum(part.shards for part in self._parts),
            shards_done=len(written),
            errors=failed,
            rate=commit_rate(self._parts, written, self._begun),
            last_commit=max(written.values(), default=0.0) or None,
            gone=self._total[GONE],
        )


def run_status(run: Run) -> Status:
    """Count a run's images once."""
    return RunCounter(run).status()


def error_counts(
    planned: ShardedDirectory, numbers: Sequence[int], files: Mapping[int, File] | None = None
) -> Iterator[tuple[int, Counter[str]]]:
    """Of each of these shards that are done, how many images ended `ok`, and with each error;
    `files` are those of all shards, if they are listed already.

    Of compacted ones it is known. Of others only the column that tells is decoded, and a limited
    number of files is held.
    """
    known = compacted_counts(planned, files) if len(numbers) > _FEW else {}
    yield from ((number, known[number]) for number in numbers if number in known)
    numbers = [number for number in numbers if number not in known]

    def count(number: int) -> Counter[str]:
        where = Object(planned.outcomes / shard_name(number))
        errors = read_table(where, SCORES, ["error"])["error"]
        found = errors.value_counts().to_pylist()
        return Counter({row["values"] or OK: row["counts"] for row in found})

    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(numbers), _FILES_HELD):
            some = numbers[start : start + _FILES_HELD]
            yield from zip(some, pool.map(count, some), strict=True)


def count_failed(planned: ShardedDirectory, numbers: Collection[int]) -> int | None:
    """How many images failed in these shards, which are done.

    Returns None where they are more than a summary is worth reading, or one is damaged.
    """
    if len(numbers) > _SUMMED:
        return None
    try:
        counts = error_counts(planned, sorted(numbers))
        return sum(found.total() - found[OK] - found[GONE] for _, found in counts)
    except (GazecoreError, OSError):
        return None
