"""What becomes of shards that end badly: their order, when a run is given up, which images kill.

Needs no Ray and starts nothing: `cluster.driver` acts on it.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from gazecore.errors import KeysRefused, RunFailed, one_line
from gazecore.shards.directory import ShardedDirectory
from gazecore.shards.plan import Shard, shards
from gazecore.shards.tally import Done, Tally

MAX_ERRORS = 3
"""How often a shard may fail with an error of its own before the run goes on without it."""

REST_SECONDS = 120.0
"""How long a shard that failed waits for its next try while there are new ones: most troubles of a
storage pass."""

MAX_IN_A_ROW = 20
"""How many new shards, for each actor, may fail one after the other; more than that is a storage
that is gone or full."""

MAX_DEATHS = 2
"""How many actors a shard may lose before it is taken up alone."""

MAX_SUSPECTS = 100
"""How many shards may wait to be taken up alone; more than that is a broken machine."""

SINGLE_TRIES = 3
"""How often a single image must end its process, alone, before it is called crashed."""


@dataclass
class Task:
    """A shard, and what it met: actors that it lost, errors of its own, when it may be next."""

    shard: Shard
    deaths: int = 0
    errors: int = 0
    due: float = 0.0

    @property
    def is_last_try(self) -> bool:
        """Whether it is given up if it fails once more."""
        return self.errors == MAX_ERRORS - 1


class Queue:
    """Shards to do.

    Those that lost an actor come first. Then new ones and those that failed take turns, once the
    latter have rested: were they all left to the end, a list of which every shard has a dead link
    would have nothing done until then. Without new ones nobody rests.
    """

    def __init__(
        self,
        front: Iterator[Shard],
        back: Iterator[Shard],
        parts: Iterator[Shard],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take new shards from two sides.

        Args:
            front: new shards, in the plan's order.
            back: the same ones from the last to the first.
            parts: what comes after them; see `Shard.is_part`.
            clock: tells seconds.
        """
        self._front, self._back, self._parts, self._clock = front, back, parts, clock
        self._held: Shard | None = None  # the first of `front`, or of `parts` after the last
        self._lowest_of_back = math.inf
        self._again: deque[Task] = deque()
        self._failed: deque[Task] = deque()
        self._was_new = False

    def pop(self, from_back: bool = False) -> Task | None:
        """The next shard; None: there is none, until one of those in work comes back.

        Args:
            from_back: of new shards, the last one.
        """
        if self._again:
            return self._again.popleft()
        if self._was_new and self._failed and self._failed[0].due <= self._clock():
            self._was_new = False
            return self._failed.popleft()
        shard = self._last() if from_back else None
        if shard is None and (shard := self._first()) is not None:
            self._held = None
        if shard is not None:
            self._was_new = True
            return Task(shard)
        return self._failed.popleft() if self._failed else None

    def is_empty(self) -> bool:
        """Whether `pop` has nothing to give."""
        return not (self._again or self._failed or self._first())

    def put_first(self, task: Task) -> None:
        """Take back a shard that is not to blame."""
        self._again.append(task)

    def put_failed(self, task: Task) -> None:
        """Take back a shard that failed: the more often, the longer it rests."""
        task.due = self._clock() + REST_SECONDS * task.errors
        self._failed.append(task)

    def _first(self) -> Shard | None:
        """The first new shard, which stays where it is."""
        if self._held is None:
            self._held = next(self._front, None)
            if self._held is None or self._held.number >= self._lowest_of_back:
                self._front = iter(())
                self._held = next(self._parts, None)
        return self._held

    def _last(self) -> Shard | None:
        """The last new shard, unless the first one is that."""
        first = self._first()
        shard = next(self._back, None) if first and not first.is_part else None
        if first is None or shard is None or shard.number <= first.number:
            return None
        self._lowest_of_back = shard.number
        return shard


class Streak:
    """New shards that failed one after the other, with nothing between that was done.

    Attributes:
        length: how many there are.
    """

    def __init__(self) -> None:
        self.length = 0

    def broken(self) -> None:
        """A shard was done."""
        self.length = 0

    def grows(self, task: Task, answered: int, actors: int) -> bool:
        """A shard failed. Returns whether that is one too many: nothing can be done at all.

        Args:
            task: the shard, this failure not counted.
            answered: images of it that the storage did answer for; a storage that answers for some
                is not gone, and there may be shards that can be done.
            actors: how many there are.
        """
        self.length += not task.errors and not answered
        return self.length > MAX_IN_A_ROW * max(1, actors)

    def is_long(self, actors: int) -> bool:
        """Whether new shards are to be taken from the plan's other end: a list may begin with many
        links to a host that is dead."""
        return self.length > MAX_IN_A_ROW * max(1, actors) // 2


class Dispatcher:
    """Hands out the shards of a directory that are not done, and decides what becomes of them.

    Attributes:
        tally: what was done so far.
        suspects: shards that kept losing the process that worked on them.
    """

    def __init__(self, planned: ShardedDirectory, again: Iterable[Shard] = ()) -> None:
        """Take up a directory with its plan; `again`: parts of shards that are done, come last."""
        done = planned.shards_done()

        def missing(number: int) -> bool:
            return planned.takes_missing and number not in done

        front, back = shards(planned, missing), shards(planned, missing, backwards=True)
        self._queue = Queue(front, back, iter(again))
        self._streak = Streak()
        self.tally = Tally()
        self.suspects: list[Task] = []

    def is_empty(self) -> bool:
        """Whether `next` has nothing to give."""
        return self._queue.is_empty()

    def next(self, workers: int) -> Task | None:
        """The next shard, None: there is none now; `workers`: how many there are."""
        return self._queue.pop(self._streak.is_long(workers))

    def done(self, task: Task, done: Done) -> None:
        """A shard was committed."""
        self.tally.add(done, task.shard.is_part)
        self._streak.broken()

    def failed(self, task: Task, error: Exception, workers: int) -> None:
        """A shard ended with an error of its own.

        Raises:
            RunFailed: it is one of too many.
            KeysRefused: the storage does not know the keys.
        """
        if isinstance(error, KeysRefused):
            raise KeysRefused(str(error))
        words = f"{type(error).__name__}: {one_line(error)}"
        if self._streak.grows(task, getattr(error, "answered", 0), workers):
            raise RunFailed(
                f"{self._streak.length} shards failed one after the other, the last with {words}; "
                "the same command continues, once that is mended"
            )
        if not self.give_up(task, words):
            self._queue.put_failed(task)

    def give_up(self, task: Task, words: str) -> bool:
        """Count an error that a shard ended with; True once it is not tried again."""
        task.errors += 1
        if task.errors >= MAX_ERRORS:
            self.tally.failed_shards[task.shard.number] = words
        return task.errors >= MAX_ERRORS

    def lost(self, task: Task, is_to_blame: bool) -> None:
        """The process that worked on a shard died; `is_to_blame`: perhaps by the shard.

        Raises:
            RunFailed: so many did that it is not the images.
        """
        task.deaths += is_to_blame
        if task.deaths < MAX_DEATHS:
            self._queue.put_first(task)
        else:
            self.suspects.append(task)
        if len(self.suspects) > MAX_SUSPECTS:
            raise RunFailed(
                f"{len(self.suspects)} shards lost {MAX_DEATHS} actors each: look for a broken "
                "machine or too little memory; the same command continues"
            )


def find_killers(
    images: pa.Table, known: frozenset[str], survives: Callable[[pa.Table], bool]
) -> frozenset[str]:
    """The images that end the process that works on them, by halving.

    Args:
        images: rows of the plan.
        known: image ids that are left out, since they are known to.
        survives: whether a process lives through these images.
    """
    ids = images["image_id"].to_pylist()
    images = images.filter(pa.array([image_id not in known for image_id in ids]))
    for _ in range(SINGLE_TRIES if images.num_rows == 1 else 1):
        if images.num_rows == 0 or survives(images):
            return frozenset()
    if images.num_rows == 1:
        return frozenset([images["image_id"][0].as_py()])
    middle = images.num_rows // 2
    halves = (images.slice(0, middle), images.slice(middle))
    return frozenset().union(*(find_killers(half, known, survives) for half in halves))
