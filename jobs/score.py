"""Score an image collection: plan, score, report."""

import math
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from cluster.layout import ClusterConfig
from gazecore.errors import InputError
from gazecore.results.settings import ScoringOptions
from gazecore.wording import counted
from jobs.command import keeping, run_command
from jobs.compact import compact_large
from jobs.console import LOADING, err, show_rows


@dataclass(frozen=True)
class ScoreOptions:
    """Score every image of a folder, bucket prefix, glob or list.

    Leaves a run directory: a row of statistics for every image (RUN/scores), and a fixation density
    for every image that could be read (RUN/densities). The same command again continues a run that
    was interrupted, and picks up images that are new in the input.
    """

    out: str
    """The run directory to write or continue. Local or any fsspec URI."""
    input: Positional[
        Annotated[str | None, arg(metavar="INPUT", help_behavior_hint="(optional)")]
    ] = None
    """Folder, prefix, glob, image, container (.tar, .tar.gz, .zip; .parquet or .arrow with a column
    of images), or list (.parquet, .csv, .tsv or .jsonl with a column `uri` or the like and perhaps
    `image_id`; .txt with one URI per line). Local or any fsspec URI, such as s3://bucket/photos.
    An image in a container is named like s3://bucket/train.tar#a/1.jpg, or train.parquet#17. A run
    that goes on knows its input, and all that it was begun with: `gazecore score --out RUN`."""
    scoring: UseAppendAction[Annotated[ScoringOptions, arg(name="")]] = field(
        default_factory=ScoringOptions
    )
    dry_run: bool = False
    """Write nothing: list the input, and say what is planned, what of it is not done, how much
    storage and how many requests that takes, and how many hours."""
    rate: float | None = None
    """For --dry-run: images per second of one actor, as a trial with --limit shows it. With
    --actors it is multiplied by their number. Without it the hours are those at the rate of the
    run's newest shards, if it has any."""
    uncompacted: bool = False
    """Leave the rows in the files of their shards, where a run of more than 256 shards would end
    with what `gazecore compact` does."""
    cluster: OmitArgPrefixes[ClusterConfig] = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        if self.rate is not None and not MIN_RATE <= self.rate < math.inf:
            raise InputError(f"--rate must be at least {MIN_RATE}, not {self.rate:g}")


if TYPE_CHECKING:
    from gazecore.scoring import Request, Scoring
    from gazecore.shards.planning import PlanSummary

MIN_RATE = 0.001

QUESTION = "image_id, information_bits, peak_x, peak_y"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("score", ScoreOptions, score, argv)


def score(options: ScoreOptions) -> int:
    """Plan, score and report; returns the exit code."""
    with err.status(LOADING):
        from cluster.logs import configure_logging
        from gazecore.scoring import Request
        from gazecore.storage import Location
        from jobs.dry_run import estimate_rows
        from jobs.work import score_images

    configure_logging(Location(options.out).uri)
    started = time.monotonic()
    request = Request(options.input, options.out, options.scoring)
    if options.dry_run:
        with err.status("planning"):
            found, again = request.estimate()
        size, actors = request.settings.shard_size, options.cluster.bounds()[1] or 1
        rows = estimate_rows(found, size, again, options.rate, actors)
        if options.scoring.rescan:
            of = f"{found.plan.changed:,} changed and {found.plan.gone:,} deleted"
            rows.append(("rescan", f"{of} since they were planned, besides what is to do"))
        show_rows(rows + plan_rows(found.plan, options.scoring) + input_rows(request))
        return 0
    with err.status("planning"), keeping(lambda: "the same command plans again"):
        scoring = request.begin()
    tally, rows, has_scores = score_images(
        "score", scoring, request.settings.input, options.cluster, started
    )
    rows += again_rows(scoring) + plan_rows(scoring.plan, options.scoring) + input_rows(request)
    rows.append(("results", scoring.run.location.uri))
    if has_scores:
        rows.append(("ask", ask(scoring.run.location.uri)))
    show_rows(rows)
    if has_scores and not tally.failed_shards and not options.uncompacted:
        compact_large(scoring.run, scoring.plan.shards, options.cluster.address)
    return 1 if tally.failed_shards else 0


def again_rows(scoring: "Scoring") -> list[tuple[str, str]]:
    """What was taken up again, labelled."""
    from gazecore.shards.plan import CHANGED, GONE

    rows, again = [], scoring.again
    if again.failed == {}:
        rows.append(("retried", "nothing: no row was failed"))
    if again.outdated is not None:
        of = sum(again.outdated.values(), Counter[str]())
        rows.append(("rescanned", f"{of[CHANGED]:,} changed, {of[GONE]:,} deleted"))
    if again.asked:
        rows.append(("named", counted(sum(map(len, again.asked.values())), "images")))
    return rows


def plan_rows(plan: "PlanSummary", asked: ScoringOptions) -> list[tuple[str, str]]:
    """What is not in the input as it was planned, labelled."""
    from gazecore.results.noticed import Noticed

    rows = []
    if 0 < plan.added < plan.images:
        rows.append(("new", f"{counted(plan.added, 'images')} that came into the input"))
    if plan.changed + plan.gone and not asked.rescan:
        rows.append(("input", str(Noticed(plan.changed, plan.gone))))
    return rows


def input_rows(request: "Request") -> list[tuple[str, str]]:
    """What was taken of the input, and what was left out, labelled."""
    from gazecore.images.choice import NO_IMAGE

    rows = [("read", request.columns.took)] if request.columns.took else []
    named = Counter({r: n for r, n in request.left_out.items() if not r.endswith(NO_IMAGE)})
    rows += [("left out", f"{count:,} {reason}") for reason, count in sorted(named.items())]
    others = (request.left_out - named).most_common()
    if others:
        words = ", ".join(f"{n:,} {reason.removesuffix(NO_IMAGE)}" for reason, n in others[:8])
        more = f" and {len(others) - 8} other kinds" if len(others) > 8 else ""
        rows.append(("left out", f"not named like images: {words}{more}"))
    return rows


def ask(run: str) -> str:
    """A question to begin with."""
    question = f'"SELECT {QUESTION} FROM scores ORDER BY information_bits DESC LIMIT 10"'
    return f"gazecore query {shlex.quote(run)} {question}"


if __name__ == "__main__":
    main()
