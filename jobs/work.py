"""How commands have a plan worked off: in this process or on Ray, with progress and a word at its
end."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cluster.layout import ClusterConfig
from gazecore.errors import GazecoreError, Interrupted, one_line
from gazecore.shards.directory import ShardedDirectory
from gazecore.shards.plan import Shard
from gazecore.shards.stage import StageConfig
from gazecore.shards.tally import Tally
from gazecore.storage import Location
from jobs.command import keeping, kept_images
from jobs.console import err, say, waiting

if TYPE_CHECKING:
    from gazecore.scoring import Scoring

MOST_HERE = 256
"""Images that are computed in this process where nobody asked for actors."""

_AT_WORK = "in-process"
"""Names the file that lies in a directory while a process without Ray works on it."""


def work_off(
    command: str,
    planned: ShardedDirectory,
    config: StageConfig,
    cluster: ClusterConfig,
    *,
    source: str,
    images: int,
    kept: int,
    again: Iterable[Shard] = (),
    taken_up: int = 0,
) -> Tally:
    """Process what is not done.

    Args:
        command: what people typed, `score`.
        planned, config, again: as the executors take them.
        cluster: where.
        source: where the images are.
        images: planned.
        kept: of them, those that had a row before.
        taken_up: of those, images that are taken up again.

    Raises:
        Interrupted: somebody ended it before it was done.
    """
    from cluster.progress import ProgressReport
    from gazecore.shards.stop import Stop

    title = {"features": command}.get(command, "scoring")
    done, tally = kept - taken_up, Tally()
    here = cluster.is_here or _is_small(planned, cluster, source, images - done)
    where = planned.location.uri

    with (
        keeping(lambda: kept_images(kept + tally.committed, images)),
        Stop(lambda text: say(f"gazecore {command}", text)) as stop,
    ):
        if here:
            from gazecore.shards import local

            with ProgressReport(title, images, err, done) as report, _marked(planned):
                tally = local.run(planned, config, report, again, stop)
        else:
            from cluster import driver
            from cluster.connection import connected, plan_layout
            from cluster.telemetry import Telemetry

            with (
                waiting("starting Ray", connected(cluster.address)) as can_grow,
                ProgressReport(title, images, err, done, Telemetry(where)) as report,
            ):
                layout = plan_layout(cluster, can_grow)
                tally = driver.run(planned, config, report, again, stop, layout=layout)
            if planned.location.is_local:
                (planned.location / _AT_WORK).remove()
        if tally.interrupted:
            raise Interrupted(stop.signal)
    return tally


def score_images(
    command: str, scoring: "Scoring", source: str, cluster: ClusterConfig, started: float
) -> tuple[Tally, list[tuple[str, str]], bool]:
    """Score what is to do of a run.

    Args:
        command: what people typed.
        scoring: what is planned.
        source: where the images are, or their list.
        cluster: where.
        started: when the command began, by `time.monotonic`.

    Returns:
        What was done, the last words on it, and whether the run has any scores.
    """
    from cluster.progress import summary_rows
    from gazecore.results.status import count_failed
    from gazecore.results.times import add_times

    tally, again = Tally(), scoring.again
    if scoring.to_do:
        tally = work_off(
            command,
            scoring.run,
            scoring.config,
            cluster,
            source=source,
            images=scoring.plan.images,
            kept=scoring.kept,
            again=scoring.parts_again(),
            taken_up=again.total(),
        )
        try:
            add_times(scoring.run, tally.times)
        except (OSError, GazecoreError) as error:  # no result depends on them
            say(f"gazecore {command}", f"the times of its stages are not kept: {one_line(error)}")
    if not tally.failed_shards:
        scoring.end()
    before = count_failed(scoring.run, scoring.before) if not again.total() else 0
    seconds = time.monotonic() - started
    rows = summary_rows(tally, "scored", scoring.done, seconds, before)
    return tally, rows, scoring.done + tally.ok > (before or 0)


def _is_small(planned: ShardedDirectory, cluster: ClusterConfig, source: str, images: int) -> bool:
    """Whether Ray would take longer to start than it saves, and nobody asked for it."""
    if cluster != ClusterConfig() or os.environ.get("RAY_ADDRESS") or images > MOST_HERE:
        return False
    if not (Location(source).is_local and planned.location.is_local):
        return False
    if (planned.location / _AT_WORK).exists():
        return False
    import torch

    return torch.cuda.device_count() < 2


@contextmanager
def _marked(planned: ShardedDirectory) -> Iterator[None]:
    """A file says that a process works here. It is left behind by one that died over an image."""
    marker = planned.location / _AT_WORK
    marker.publish(b"")
    try:
        yield
    finally:
        marker.remove()
