"""How two runs differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from gazecore.errors import InputError
from gazecore.evaluation.settings import EvaluationConfig
from gazecore.wording import counted
from jobs.command import run_command, typed
from jobs.console import LOADING, err, progress_bar, show_rows


@dataclass(frozen=True)
class CompareOptions:
    """Compare the densities of two runs: of two models, or of two versions of a set of images.

    Leaves in OUT: images.parquet (each pair's divergence, correlation, shift of the peak, changes
    of the statistics and of the ranks), summary.json (averages), report.html (the same to look at,
    with the pairs that differ most); with a corpus also metrics.parquet.
    """

    run_a: Positional[Annotated[str, arg(metavar="RUN_A")]]
    """The first run directory, local or any fsspec URI."""
    run_b: Positional[Annotated[str, arg(metavar="RUN_B")]]
    """The second one. Changes are from the first to the second."""
    out: str
    """The folder for the results, local or any fsspec URI."""
    match: str | None = None
    """A table (.csv or .parquet) of pairs: `a`, the image_id in the first run, and `b`, that in the
    second. By default images of the same image_id are compared."""
    corpus: str | None = None
    """A corpus with fixations on the images: the difference of every metric, image by image."""
    judging: OmitArgPrefixes[EvaluationConfig] = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        if self.judging != EvaluationConfig() and not self.corpus:
            raise InputError("--metrics and --sigma mean nothing without --corpus")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    command = typed("compare", argv)
    run_command("compare", CompareOptions, lambda options: compare(options, command), argv)


def compare(options: CompareOptions, command: str) -> int:
    """Compare, write and print."""
    with err.status(LOADING):
        from gazecore.comparison.outputs import compare_runs
        from gazecore.corpus.schema import load_corpus
        from gazecore.results.run import open_run
        from gazecore.storage import Location

    first, second = (open_run(Location(uri)) for uri in (options.run_a, options.run_b))
    found = compare_runs(
        first,
        second,
        Location(options.out),
        Location(options.match) if options.match else None,
        load_corpus(options.corpus) if options.corpus else None,
        options.judging,
        command=command,
        steps=progress_bar,
    )
    summary = found.summary
    rows = [("pairs", f"{summary['images']:,}")]
    if summary["other_size"]:
        rows.append(("", f"{summary['other_size']:,} of them of different sizes"))
    rows += [("left out", counted(count, why)) for why, count in summary["left_out"].items()]
    for name, title in _TITLES.items():
        if name in summary["averages"]:
            rows.append((title, _average(summary["averages"][name])))
    for metric, values in summary["metrics"].items():
        difference = values["difference"]
        rows.append((f"{metric}, B - A", _interval(difference)))
    if summary["metrics"]:
        rows.append(("judged", counted(summary["judged"], "images")))
    show_rows([*rows, ("page", (found.out / "report.html").uri)])
    return 0


_TITLES = {
    "js_bits": "Jensen-Shannon, bit",
    "cc": "CC",
    "peak_shift": "peak shift, px",
    "peak_shift_share": "peak shift, of the diagonal",
}


def _average(value: Mapping[str, Any]) -> str:
    return f"{_interval(value)}, {value['least']:z.3f} to {value['most']:z.3f} in single images"


def _interval(value: Mapping[str, Any]) -> str:
    return f"{value['mean']:z.4f} [{value['low']:z.4f}, {value['high']:z.4f}]"


if __name__ == "__main__":
    main()
