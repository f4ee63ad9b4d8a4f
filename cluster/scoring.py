"""The scoring driver: hands the missing shards of a run to a pool of actors.

The driver keeps nothing per image. A shard whose actor died goes back to the queue; a shard that
lost two actors is put aside and taken up alone at the end, where the images that end the process
are found by halving.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import ray
import structlog
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from cluster.actors import SHARDS_AT_ONCE, ActorConfig, start_actor
from cluster.session import ActorLayout
from gazecore.errors import RunFailed, one_line
from gazecore.results.plan import Shard, shards
from gazecore.results.run import Run

MAX_ERRORS = 3
"""How often a shard may fail with an error of its own before the run goes on without it."""

MAX_DEATHS = 2
"""How many actors a shard may lose before it is taken up alone."""

SINGLE_TRIES = 3
"""How often a single image must end its process, alone, before it is called crashed."""

log = structlog.get_logger()

Outcome = dict[str | None, int] | Exception
"""What a call to an actor ended with: images by error (None: ok), or why there is no answer."""


@dataclass
class Tally:
    """What has happened so far; updated in place.

    Attributes:
        ok: images scored in this run of the command.
        errors: failed images by error class.
        unfinished: images (ok, failed) of shards that are in work.
        shards: shards committed.
        failed_shards: shard number to the reason that it could not be done.
        deaths: actors lost.
    """

    ok: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    unfinished: tuple[int, int] = (0, 0)
    shards: int = 0
    failed_shards: dict[int, str] = field(default_factory=dict)
    deaths: int = 0

    @property
    def failed(self) -> int:
        """Failed images of committed shards."""
        return sum(self.errors.values())

    def add(self, counts: dict[str | None, int]) -> None:
        """Count a committed shard."""
        self.shards += 1
        for error, count in counts.items():
            if error is None:
                self.ok += count
            else:
                self.errors[error] = self.errors.get(error, 0) + count


@dataclass
class _Task:
    shard: Shard
    deaths: int = 0
    errors: int = 0


class _Slot:
    """A place in the pool: an actor that is replaced when it dies."""

    def __init__(self, config: ray.ObjectRef, layout: ActorLayout) -> None:
        self._config, self._layout = config, layout
        self._progress: ray.ObjectRef | None = None
        self.load = 0
        self.counts = (0, 0)
        self.actor = start_actor(config, layout.gpus, layout.cpus)

    def replace(self) -> None:
        """Start a new actor in the place of one that died."""
        ray.kill(self.actor)
        self.actor = start_actor(self._config, self._layout.gpus, self._layout.cpus)
        self._progress, self.counts = None, (0, 0)

    def poll(self) -> None:
        """Pick up the last answer on progress and ask again; never waits."""
        if self._progress is not None:
            ready, _ = ray.wait([self._progress], timeout=0)
            if not ready:
                return
            try:
                self.counts = ray.get(ready[0])
            except RayError:
                self.counts = (0, 0)
        self._progress = self.actor.progress.remote()


def score_run(
    run: Run, config: ActorConfig, layout: ActorLayout, report: Callable[[Tally], None]
) -> Tally:
    """Score every shard of the plan that is not done.

    Args:
        run: planned.
        config: what actors build themselves from.
        layout: how many actors, and how large.
        report: is called about once a second.

    Raises:
        RunFailed: actors cannot load the model.
    """
    done = run.shards_done()
    waiting = shards(run, lambda number: number not in done)
    tally = Tally()
    first = next(waiting, None)
    if first is None:
        return tally
    shared = ray.put(config)
    slots = [_Slot(shared, layout) for _ in range(layout.actors)]
    _wait_for_actor(slots, layout, lambda: report(tally))
    suspects = _drain(slots, _chain(first, waiting), tally, report)
    for task in suspects:
        _score_alone(slots[0], task, tally, report)
    return tally


def _drain(
    slots: list[_Slot], waiting: Iterator[Shard], tally: Tally, report: Callable[[Tally], None]
) -> list[_Task]:
    """Score shards on all actors; returns those that kept losing theirs."""
    again: deque[_Task] = deque()
    suspects: list[_Task] = []
    flying: dict[ray.ObjectRef, tuple[_Slot, ray.actor.ActorHandle, _Task]] = {}
    while True:
        # Evenly: no actor gets its second shard before every one has its first.
        for slot in sorted(slots, key=lambda s: s.load):
            if slot.load < SHARDS_AT_ONCE:
                task = again.popleft() if again else _next_task(waiting)
                if task is None:
                    break
                slot.load += 1
                ref = slot.actor.score.remote(task.shard, frozenset())
                flying[ref] = (slot, slot.actor, task)
        if not flying and not again:
            return suspects
        ready, _ = ray.wait(list(flying), timeout=1.0)
        for ref in ready:
            slot, actor, task = flying.pop(ref)
            slot.load -= 1
            outcome = _outcome(ref)
            if isinstance(outcome, dict):
                tally.add(outcome)
            elif _is_death(outcome):
                if slot.actor is actor:
                    tally.deaths += 1
                    log.warning("actor_died", reason=one_line(outcome, 160))
                    slot.replace()
                task.deaths += 1
                (again if task.deaths < MAX_DEATHS else suspects).append(task)
            elif not _give_up(task, outcome, tally):
                again.append(task)
        _report_progress(slots, tally, report)


def _score_alone(slot: _Slot, task: _Task, tally: Tally, report: Callable[[Tally], None]) -> None:
    """Score a shard that kept losing its actor, after finding the images that are to blame."""
    crashed: frozenset[str] = frozenset()
    log.warning("shard_alone", shard=task.shard.number, images=task.shard.images.num_rows)
    while True:
        ref = slot.actor.score.remote(task.shard, crashed)
        outcome = _wait_for(ref, lambda: _report_progress([slot], tally, report))
        if isinstance(outcome, dict):
            tally.add(outcome)
            return
        if _is_death(outcome):
            tally.deaths += 1
            slot.replace()
            crashed |= _find_killers(slot, task.shard.images, crashed, tally)
        elif _give_up(task, outcome, tally):
            return


def _find_killers(
    slot: _Slot, images: pa.Table, known: frozenset[str], tally: Tally
) -> frozenset[str]:
    """The images that end the process that scores them, by halving."""
    ids = images["image_id"].to_pylist()
    keep = pa.array([image_id not in known for image_id in ids])
    images = images.filter(keep)
    for _ in range(SINGLE_TRIES if images.num_rows == 1 else 1):
        if images.num_rows == 0 or _survives(slot, images, tally):
            return frozenset()
    if images.num_rows == 1:
        image_id = images["image_id"][0].as_py()
        log.warning("image_crashed", image_id=image_id)
        return frozenset([image_id])
    middle = images.num_rows // 2
    return _find_killers(slot, images.slice(0, middle), known, tally) | _find_killers(
        slot, images.slice(middle), known, tally
    )


def _survives(slot: _Slot, images: pa.Table, tally: Tally) -> bool:
    outcome = _wait_for(slot.actor.survive.remote(images), lambda: None)
    if isinstance(outcome, Exception) and _is_death(outcome):
        tally.deaths += 1
        slot.replace()
        return False
    return True


def _outcome(ref: ray.ObjectRef) -> Outcome:
    try:
        counts: dict[str | None, int] = ray.get(ref)
        return counts
    except (RayActorError, RayTaskError, OutOfMemoryError) as error:
        if isinstance(error, RayActorError) and getattr(error, "actor_init_failed", False):
            raise RunFailed(f"an actor cannot start: {_reason(error)}") from error
        failure: Exception = error
        return failure


def _wait_for(ref: ray.ObjectRef, tick: Callable[[], None]) -> Outcome:
    while not ray.wait([ref], timeout=1.0)[0]:
        tick()
    return _outcome(ref)


def _is_death(error: Exception) -> bool:
    return isinstance(error, RayActorError | OutOfMemoryError)


def _give_up(task: _Task, error: Exception, tally: Tally) -> bool:
    """Count an error that a shard ended with; True once it is not tried again."""
    cause: Exception = error.cause if isinstance(error, RayTaskError) else error
    message = f"{type(cause).__name__}: {one_line(cause)}"
    task.errors += 1
    log.warning("shard_error", shard=task.shard.number, error=message, attempt=task.errors)
    if task.errors >= MAX_ERRORS:
        tally.failed_shards[task.shard.number] = message
        return True
    return False


def _report_progress(slots: list[_Slot], tally: Tally, report: Callable[[Tally], None]) -> None:
    for slot in slots:
        slot.poll()
    tally.unfinished = (sum(s.counts[0] for s in slots), sum(s.counts[1] for s in slots))
    report(tally)


def _wait_for_actor(slots: list[_Slot], layout: ActorLayout, tick: Callable[[], None]) -> None:
    """Wait until one actor holds its model; says what is missing where the cluster has no room."""
    refs = [slot.actor.ready.remote() for slot in slots]
    waited = 0
    while True:
        ready, _ = ray.wait(refs, timeout=1.0)
        if ready:
            try:
                ray.get(ready[0], timeout=1)
                return
            except GetTimeoutError:
                continue
            except RayTaskError as error:
                raise RunFailed(f"an actor cannot start: {one_line(error.cause)}") from error
            except RayActorError as error:
                raise RunFailed(f"an actor cannot start: {_reason(error)}") from error
        waited += 1
        if waited % 30 == 0:
            log.warning(
                "waiting_for_room",
                actors=layout.actors,
                gpus_per_actor=layout.gpus,
                cpus_per_actor=layout.cpus,
                cluster={k: v for k, v in ray.cluster_resources().items() if k in ("CPU", "GPU")},
            )
        tick()


def _reason(error: RayActorError) -> str:
    """The last line of an actor's traceback, which holds the error itself."""
    return str(error).strip().splitlines()[-1].strip()


def _next_task(waiting: Iterator[Shard]) -> _Task | None:
    shard = next(waiting, None)
    return None if shard is None else _Task(shard)


def _chain(first: Shard, rest: Iterator[Shard]) -> Iterator[Shard]:
    yield first
    yield from rest
