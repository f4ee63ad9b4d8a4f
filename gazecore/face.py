"""What a Python user calls besides a model; `gazecore` itself offers all of it (docs/python.md)."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gazecore import courtesy
from gazecore.comparison.outputs import Comparison, compare_runs
from gazecore.corpus.schema import Corpus
from gazecore.crops.measure import Cropped, crop_run
from gazecore.density.crops import CropConfig
from gazecore.errors import InputError, RunFailed
from gazecore.evaluation.densities import Densities
from gazecore.evaluation.maps import Maps
from gazecore.evaluation.outputs import Evaluation, describe, evaluate_densities, image_list
from gazecore.evaluation.selection import select_images
from gazecore.evaluation.settings import EvaluationConfig, MapsAre
from gazecore.geometry import DEFAULT_FACTOR, DisplaySize
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.metrics.names import METRICS, Metric
from gazecore.model.record import TrainingRecord
from gazecore.model.spec import DEFAULT
from gazecore.predictor import Model
from gazecore.regions.files import open_regions
from gazecore.regions.measure import FIXATIONS, Measured, measure_run
from gazecore.results.overview import Shown
from gazecore.results.reader import Results, open_results
from gazecore.results.run import ModelNote, RunSettings, begin_run
from gazecore.results.settings import ScoringOptions
from gazecore.scoring import Request, ScoringStage
from gazecore.shards import local
from gazecore.shards.planning import update_plan
from gazecore.shards.stage import ReadingConfig
from gazecore.shards.tally import Tally
from gazecore.storage import Location
from gazecore.view.run import Reported, write_report


def score(
    source: str | Path,
    out: str | Path,
    *,
    model: str = DEFAULT,
    centerbias: str | None = None,
    backbone_weights: str | None = None,
    display_size: DisplaySize | None = None,
    density_factor: int = DEFAULT_FACTOR,
    shard_size: int | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    rescan: bool = False,
    keep: Sequence[str] = (),
    header: Sequence[str] = (),
    rate_per_host: float | None = None,
    executor: local.Executor = local.run,
    report: Callable[[Tally], None] = lambda tally: None,
) -> Results:
    """Score a collection of images: what `gazecore score` does.

    The same call again continues what was interrupted, and picks up new images. Images that cannot
    be read become failed rows.

    Args:
        source: a folder, prefix, glob, image, container of images or list, local or any fsspec
            URI; see docs/inputs.md.
        out: the run directory to write or continue.
        model, centerbias, backbone_weights, display_size: as `load` takes them.
        density_factor: grid cells per stored density cell and direction: 4, 2 or 1.
        shard_size, limit, retry_failed, rescan, keep, header, rate_per_host: as `ScoringOptions`
            has them.
        executor: what computes: this process, without Ray, or `cluster.driver.at(ADDRESS)`.
        report: is called now and then with what was done so far.

    Raises:
        InputError, BundleError, RunMismatch: something that you can mend.
        RunFailed: shards could not be done; the same call tries them again.
    """
    options = ScoringOptions(
        model,
        centerbias,
        backbone_weights,
        shard_size,
        display_size,
        density_factor,
        limit=limit,
        retry_failed=retry_failed,
        rescan=rescan,
        keep=tuple(keep),
        header=tuple(header),
        rate_per_host=rate_per_host,
    )
    try:
        scoring = Request(str(source), str(out), options).begin()
        if scoring.to_do:
            tally = executor(scoring.run, scoring.config, report, scoring.parts_again())
            if tally.failed_shards:
                shard, why = next(iter(tally.failed_shards.items()))
                raise RunFailed(
                    f"{len(tally.failed_shards)} shards could not be done, such as {shard}: {why}; "
                    "the same call tries them again"
                )
    finally:
        courtesy.use(courtesy.WebOptions())
    scoring.end()
    return Results(scoring.run)


def open_run(uri: str | Path) -> Results:
    """Open a run directory, finished or not, local or on any fsspec URI.

    Raises:
        InputError: there is none.
    """
    return open_results(str(uri))


def measure_regions(
    run: Results,
    regions: str | Path,
    out: str | Path,
    *,
    corpus: Corpus | None = None,
    fixations: int = FIXATIONS,
) -> Measured:
    """How much of the fixations falls on parts of a run's images: what `gazecore regions` does.

    Args:
        run: from `score` or `open_run`.
        regions: boxes in a table (.parquet, .csv, .tsv: image_id, x, y, width, height, and perhaps
            name), COCO's annotations (.json), or a folder of masks (PNG).
        out: the Parquet file to write, a row for each region, see docs/regions.md.
        corpus: from `load_corpus`: fixations on the same images, measured beside.
        fixations: of which at least one may fall in a region, for the column `chance`.

    Returns:
        How many there are; `table` is what was written.

    Raises:
        InputError: the regions cannot be read, are of no image of the run, or `out` is a file of
            others.
    """
    return measure_run(
        run.run, open_regions(Location(str(regions))), Location(str(out)), corpus, fixations
    )


def crop(
    run: Results,
    out: str | Path,
    *,
    aspects: Sequence[str],
    least_scale: float = 1.0,
    keep: float = 0.95,
    margin: float = 0.0,
    files: str | Path | None = None,
) -> Cropped:
    """Where to crop a run's images so that most of the fixations are kept: `gazecore crop`.

    Args:
        run: from `score` or `open_run`.
        out: the Parquet file to write, a row for each image and aspect, see docs/crops.md.
        aspects: ratios of width to height, such as `16:9`.
        least_scale, keep, margin: see `density.crops.CropConfig`.
        files: a folder for the pieces as files of the images' own formats; None: only the table.

    Returns:
        How many there are; `table` is what was written.

    Raises:
        InputError: a ratio or a number makes no sense, the run has no density, or a file of others
            would be written over.
    """
    try:
        config = CropConfig(least_scale, keep, margin)
    except ValueError as error:
        raise InputError(str(error)) from error
    folder = None if files is None else Location(str(files))
    return crop_run(run.run, aspects, Location(str(out)), config, folder)


def compare(
    first: Results,
    second: Results,
    out: str | Path,
    *,
    match: str | Path | None = None,
    corpus: Corpus | None = None,
    metrics: tuple[Metric, ...] = METRICS,
    sigma: float = EvaluationConfig.sigma,
) -> Comparison:
    """How two runs differ: what `gazecore compare` does.

    Args:
        first, second: from `score` or `open_run`: of two models, or of two versions of images.
        out: the folder for the tables and the page, see docs/compare.md.
        match: a table of pairs with the columns `a` and `b`, image ids of both runs; None: images
            of one image_id are compared.
        corpus: from `load_corpus`: both runs are judged by its fixations too.
        metrics, sigma: as `evaluate` takes them.

    Returns:
        `summary` has the averages, `images` and `metrics` are tables of every value.

    Raises:
        InputError: the runs have no image in common, or `out` holds other things.
    """
    table = None if match is None else Location(str(match))
    config = EvaluationConfig(metrics, sigma)
    return compare_runs(first.run, second.run, Location(str(out)), table, corpus, config)


def report(
    run: Results,
    out: str | Path,
    *,
    images: int = Shown.images,
    seed: int = Shown.seed,
    densities_only: bool = False,
) -> Reported:
    """A page to look at a run: what `gazecore report` does.

    Args:
        run: from `score` or `open_run`.
        out: the folder for the page and its pictures, see docs/pages.md.
        images: on the page at most; of a larger run the extremes, failed ones and a random sample.
        seed: of that.
        densities_only: read no image again.

    Returns:
        Where the `page` is, how many `images` are on it, and how many of them were `unread`.

    Raises:
        InputError: nothing is scored, or a file of others would be written over.
    """
    shown = Shown(images=images, seed=seed)
    return write_report(run.run, Location(str(out)), shown, densities_only=densities_only)


@dataclass(frozen=True)
class _Loaded:
    """A `StageConfig` of a model that is loaded already."""

    where: str
    stage: ScoringStage
    reading: ReadingConfig

    def build(self, threads: int | None = None, gpu: bool | None = None) -> ScoringStage:
        """See `StageConfig.build`."""
        return self.stage


def evaluate(
    model: Model | Results | str,
    corpus: Corpus,
    *,
    maps_are: MapsAre = "saliency",
    images: str | None = None,
    limit: int | None = None,
    baseline: str = "centerbias",
    metrics: tuple[Metric, ...] = METRICS,
    sigma: float = EvaluationConfig.sigma,
    on_image: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Judge a model, a run's densities or others' maps by recorded fixations; what `gazecore
    evaluate` does.

    Args:
        model: from `load`, or a run from `score` or `open_run`; a text says where others' maps are,
            see `evaluation.maps.Maps`.
        corpus: from `load_corpus`.
        maps_are: what others' maps hold: `saliency`, `density` or `log-density`.
        images: None for all that have fixations, `held-out` for those that the model's training
            held out, or a text file with an image_id on each line.
        limit: judge only the first so many.
        baseline: what information gain is over: `centerbias`, `uniform`, or the URI of a run.
        metrics: which.
        sigma: deviation in pixels of the empirical maps of CC, KLDiv and SIM, usually one degree.
        on_image: is called after each judged image.

    Returns:
        `summary` has the averages with 95 % intervals, `images` and `fixations` every value.

    Raises:
        InputError: there is nothing to judge.
    """
    config = EvaluationConfig(metrics, sigma)
    name, bundle = "the model", None
    if isinstance(model, Model):
        name, bundle = model.name, model.bundle
    record = bundle.training if bundle else TrainingRecord()
    held_out = record.held_out(corpus.digest, corpus.image_ids)
    chosen, left_out = select_images(corpus, images, limit, held_out)
    asked = {"images": images, "limit": limit}
    if isinstance(model, str):
        maps = Maps(corpus, chosen, model, maps_are, baseline)
        about = describe(corpus, maps, model, None, left_out, baseline, asked)
        return evaluate_densities(corpus, maps, config, about, on_image)
    with tempfile.TemporaryDirectory(prefix="gazecore-evaluate-") as folder:
        if isinstance(model, Results):
            run = model.run.location.uri
        else:
            run = _scored_here(model, corpus, chosen, Location(folder))
        densities = Densities(corpus, chosen, run, baseline)
        about = describe(corpus, densities, name, bundle, left_out, baseline, asked)
        return evaluate_densities(corpus, densities, config, about, on_image)


def _scored_here(model: Model, corpus: Corpus, chosen: list[str], folder: Location) -> str:
    """A run over images of a corpus by a model that is loaded; returns where it is."""
    (folder / "input.parquet").publish(image_list(corpus, chosen))
    settings = RunSettings(
        (folder / "input.parquet").uri,
        model.bundle.fingerprint,
        model.display_size,
        64,
        1,
        Limits(),
    )
    run = begin_run(folder / "run", settings, ModelNote(model.name))
    update_plan(run, list_images(settings.input, ("file",)))
    reading = ReadingConfig(model.display_size)
    tally = local.run(run, _Loaded(run.location.uri, ScoringStage(model.deepgaze, run), reading))
    for why in tally.failed_shards.values():
        raise RunFailed(f"the corpus's images could not be scored: {why}")
    return run.location.uri
