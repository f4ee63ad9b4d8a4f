"""From two runs to a folder that says how they differ.

DIR/images.parquet     a row for every pair of images (`gazecore.comparison.measure`)
DIR/metrics.parquet    with a corpus: a row for every judged image (`gazecore.comparison.judged`)
DIR/report.html        to look at
DIR/summary.json       averages; written last
"""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

import gazecore
from gazecore.comparison.illustrations import illustrate
from gazecore.comparison.judged import JudgedRuns
from gazecore.comparison.measure import COMPARISON, measure_pairs
from gazecore.comparison.pairs import ScoredImages, pair
from gazecore.corpus.schema import Corpus
from gazecore.errors import GazecoreError, InputError
from gazecore.evaluation.settings import EvaluationConfig
from gazecore.ownership import is_table_of
from gazecore.results.run import Run
from gazecore.steps import Steps, uncounted
from gazecore.storage import Location
from gazecore.tables import publish_table
from gazecore.temporaries import TEMPORARY_SUFFIX
from gazecore.view.comparison import render_comparison
from gazecore.view.pages import short

_MARK = "comparison"


@dataclass(frozen=True)
class Comparison:
    """What was found. `summary` is the content of summary.json."""

    out: Location
    summary: dict[str, Any]

    @property
    def images(self) -> pa.Table:
        """The table of pairs, read."""
        return (self.out / "images.parquet").read_table()

    @property
    def metrics(self) -> pa.Table | None:
        """The table of judged images, read; None without a corpus."""
        return (self.out / "metrics.parquet").read_table() if self.summary["metrics"] else None


def compare_runs(
    first: Run,
    second: Run,
    out: Location,
    match: Location | None = None,
    corpus: Corpus | None = None,
    config: EvaluationConfig = EvaluationConfig(),
    *,
    command: str = "",
    steps: Steps = uncounted,
) -> Comparison:
    """Compare the densities of two runs, and write the folder.

    Args:
        first, second: finished or not; images with a density in both are compared.
        out: the folder.
        match: a table of pairs, see `pairs.pair`; None: by image_id.
        corpus: fixations on the images, by which both are judged.
        config: how.
        command: that the page names.
        steps: how somebody is told.

    Raises:
        InputError: the runs have no image in common, the folder holds other things or lies in a
            run, or a corpus is given with `match`.
    """
    for source in (first.location, second.location):
        if f"{out.uri}/".startswith(f"{source.uri}/"):
            raise InputError(f"--out {out.uri} lies in {source.uri}: choose another folder")
    if foreign := _foreign(out):
        raise InputError(f"--out {out.uri} holds {foreign}, which is of no comparison")
    if corpus and match:
        raise InputError("--corpus judges both runs on the same images: --match means others")
    judged = JudgedRuns(corpus, (first, second)) if corpus else None
    images = ScoredImages(first), ScoredImages(second)
    pairs = pair(*images, match)
    (out / "summary.json").remove()  # until all files are of this comparison
    found = measure_pairs((first, second), images, pairs, out / "images.parquet", steps)
    metrics: dict[str, Any] = {}
    if judged:
        with steps("judging", 2 * len(judged.images)) as on_image:
            table, metrics = judged.judge(config, on_image)
        publish_table(out / "metrics.parquet", table)
    else:
        (out / "metrics.parquet").remove()
    summary: dict[str, Any] = {
        "gazecore_version": gazecore.__version__,
        _MARK: {"a": _about(first), "b": _about(second)},
        "images": found.images,
        "other_size": found.other_size,
        "left_out": {
            why: count
            for why, count in (
                ("images of the first run alone", len(images[0]) - len(pairs)),
                ("images of the second run alone", len(images[1]) - len(pairs)),
            )
            if count
        },
        "averages": found.averages,
        "statistics": found.statistics,
        "corpus": corpus.uri if corpus else None,
        "judged": len(judged.images) if judged else 0,
        "not_judged": judged.left_out if judged else {},
        "metrics": metrics,
    }
    page = render_comparison(summary, found.js_bits, illustrate(found.most), command)
    (out / "report.html").publish(page.encode())
    (out / "summary.json").publish((json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    return Comparison(out, summary)


def _about(run: Run) -> dict[str, str]:
    name = run.model.name or short(run.settings.model)
    return {
        "run": run.location.uri,
        "model": name,
        "trained_on": run.model.trained_on,
        "fingerprint": run.settings.model,
        "display_size": str(run.settings.display_size),
    }


def _foreign(out: Location) -> str | None:
    """A file in a folder that is of no comparison, begun or finished."""
    names = [name for name in out.names() if not name.endswith(TEMPORARY_SUFFIX)]
    if not names:
        return None
    try:
        if (out / "summary.json").exists():
            summary = json.loads((out / "summary.json").read_bytes())
            is_ours = isinstance(summary, dict) and _MARK in summary
        else:
            is_ours = is_table_of(COMPARISON)(out / "images.parquet")
    except (OSError, ValueError, RecursionError, GazecoreError):
        is_ours = False
    return None if is_ours else names[0]
