"""From a corpus and the densities of its images to tables, averages and a page.

DIR/images.parquet, fixations.parquet    every value (`gazecore.evaluation.tables`)
DIR/report.html                          to look at
DIR/summary.json                         averages (`gazecore.evaluation.summary`); written last
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import gazecore
from gazecore.cores import cores
from gazecore.corpus.schema import Corpus
from gazecore.errors import GazecoreError, InputError
from gazecore.evaluation.densities import Densities
from gazecore.evaluation.illustrations import best_and_worst
from gazecore.evaluation.judge import Judge
from gazecore.evaluation.maps import Maps
from gazecore.evaluation.settings import EvaluationConfig
from gazecore.evaluation.summary import summarise
from gazecore.evaluation.tables import fixation_table, image_table, with_ceiling
from gazecore.model.bundle import ModelBundle, load_bundle
from gazecore.model.record import TrainingRecord
from gazecore.model.spec import DEFAULT
from gazecore.ownership import is_table_of
from gazecore.results.run import open_run
from gazecore.storage import Location, parquet_bytes
from gazecore.tables import publish_table
from gazecore.view.report import render_report

_MOST_THREADS = 16  # each holds maps of its image

_LISTED = ["image_id", "uri"]


@dataclass(frozen=True)
class Evaluation:
    """What was found. `summary` is the content of summary.json."""

    images: pa.Table
    fixations: pa.Table
    summary: dict[str, Any]


def evaluate_densities(
    corpus: Corpus,
    densities: Densities | Maps,
    config: EvaluationConfig,
    about: Mapping[str, Any],
    on_image: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Judge densities by the corpus's fixations.

    Args:
        corpus: images and fixations.
        densities: of the images to judge.
        config: what to compute.
        about: goes into the summary: where all this came from.
        on_image: is called after each image.
    """
    judge = Judge(corpus, densities.images, config)
    found = judge.judge_all(densities, cores(_MOST_THREADS), on_image)
    judgements = {i: found[i] for i in corpus.image_ids if i in found}
    images = image_table(corpus, judgements, config.metrics)
    if config.ceiling:
        images = with_ceiling(images, judgements)
    fixations = fixation_table(corpus, judgements, config.metrics)
    gold = judge.gold_standard
    summary = {
        "gazecore_version": gazecore.__version__,
        **about,
        "images": images.num_rows,
        "fixations": fixations.num_rows,
        "viewers": len(fixations["subject"].unique()),
        "settings": asdict(config),
        **summarise(images, config.metrics),
        "centerbias": {
            "bandwidth": judge.centerbias.bandwidth,
            "uniform_share": judge.centerbias.uniform_share,
        },
        "gold_standard": gold and {"bandwidth": gold.bandwidth, "weights": gold.weights},
    }
    return Evaluation(images, fixations, summary)


def describe(
    corpus: Corpus,
    densities: Densities | Maps,
    name: str,
    bundle: ModelBundle | None,
    left_out: Mapping[str, int],
    baseline: str,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """Where an evaluation comes from, for its summary.

    Args:
        corpus, densities: what is judged by what.
        name: what the page calls the model.
        bundle: of the model; None: it is not known.
        left_out: images that were not chosen, by reason.
        baseline: what information gain is over.
        asked: which images were asked for.
    """
    training = bundle.training if bundle else TrainingRecord()
    return {
        "corpus": {"uri": corpus.uri},
        "model": {
            "name": name,
            "fingerprint": densities.model,
            "training": None if bundle is None else _trained(training),
            "trained_on": training.trained_on() if bundle else densities.trained_on,
        },
        "run": densities.run,
        **({"maps_are": densities.values} if isinstance(densities, Maps) else {}),
        "baseline": baseline,
        "asked": dict(asked),
        "seen_in_training": len(training.seen(corpus.digest, densities.images)),
        "left_out": {**left_out, **densities.left_out},
    }


def _trained(training: TrainingRecord) -> dict[str, Any]:
    """What a page says of a training: the last stage, and all of them."""
    wanted = ("corpus", "images", "fixations")
    found = [{key: getattr(stage, key) for key in wanted} for stage in training.stages()]
    counted = [stage for stage in found if None not in stage.values()]
    named = [stage for stage in found if stage["corpus"]]
    return {**counted[-1], "stages": named} if counted else {}


def judged_bundle(model: str | None, run: str | None) -> ModelBundle | None:
    """The model that is judged; None for a run whose model is not named and not the default.

    Args:
        model: a bundle; None: the default.
        run: whose densities are judged in the model's place.

    Raises:
        InputError: the run is not of the model that is named.
    """
    bundle = load_bundle(model or DEFAULT)
    if run and open_run(Location(run)).settings.model != bundle.fingerprint:
        if model:
            raise InputError(f"{run} was not scored with {model}")
        return None
    return bundle


def refuse_foreign(out: str, sources: Iterable[str | None]) -> None:
    """Raise InputError where a folder for an evaluation holds other things, or lies in a source."""
    folder = Location(out)
    for source in sources:
        if source and f"{folder.uri}/".startswith(f"{Location(source).uri}/"):
            raise InputError(f"--out {out} lies in {source}: choose another folder")
    if (names := folder.names()) and not is_evaluation(folder):
        raise InputError(f"--out {out} holds {names[0]}, which is of no evaluation")


def write_evaluation(
    out: Location,
    evaluation: Evaluation,
    corpus: Corpus,
    densities: Densities | Maps,
    command: str = "",
) -> None:
    """Write the four files; summary.json, which says that it is complete, comes last. The page
    names the command."""
    (out / "summary.json").remove()  # until all files are of this evaluation
    gains = {
        title: evaluation.images[column].drop_null().to_numpy()
        for title, column in (
            ("Model", "information_gain_model"),
            ("Gold standard", "information_gain_gold_standard"),
        )
        if column in evaluation.images.column_names
    }
    best, worst = best_and_worst(evaluation.images, corpus, densities)
    page = render_report(
        evaluation.summary, {k: v for k, v in gains.items() if len(v)}, best, worst, command
    )
    (out / "report.html").publish(page.encode())
    for name, table in (("images", evaluation.images), ("fixations", evaluation.fixations)):
        publish_table(out / f"{name}.parquet", table)
    (out / "summary.json").publish(
        (json.dumps(evaluation.summary, indent=2, allow_nan=False) + "\n").encode()
    )


def is_evaluation(out: Location) -> bool:
    """Whether a folder is one that `write_evaluation` wrote, or that is on its way there: the list
    of images and the run over them, which come first."""
    try:
        if (out / "summary.json").exists():
            summary = json.loads((out / "summary.json").read_bytes())
            return isinstance(summary, dict) and "gazecore_version" in summary
        listed = is_table_of(pa.schema([(name, pa.string()) for name in _LISTED]))
        if not listed(out / "input.parquet"):
            return False
        if (out / "run").exists():
            open_run(out / "run")
        return True
    except (OSError, ValueError, RecursionError, GazecoreError):
        return False


def image_list(corpus: Corpus, chosen: list[str]) -> bytes:
    """A Parquet list of images that `gazecore score` takes."""
    wanted = pa.array(chosen, pa.string())
    table = corpus.images.select(_LISTED)
    return parquet_bytes(table.filter(pc.is_in(table["image_id"], value_set=wanted)))
