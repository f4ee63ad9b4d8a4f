"""Tables on a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from rich.measure import Measurement
from rich.table import Table

from gazecore.evaluation.settings import PREDICTORS
from gazecore.wording import counted, printable
from jobs.console import out, show_rows

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_SHOWN = 200
COLUMN_WIDTH = 12
"""Of a terminal, at least; narrower ones cannot be read."""


def show_answer(answer: "pa.Table") -> None:
    """Print the first rows of a query's answer."""
    import pyarrow as pa

    table = Table(box=None, padding=(0, 2, 0, 0))
    shown_columns = max(1, out.width // COLUMN_WIDTH)
    hidden = answer.num_columns - shown_columns
    if hidden > 0:
        answer = answer.select(range(shown_columns))
    for field in answer.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(field.name, justify="right" if numeric else "left", overflow="fold")
    shown = answer.slice(0, ROWS_SHOWN)
    for row in zip(*(column.to_pylist() for column in shown.columns), strict=True):
        table.add_row(*(_cell(value) for value in row))
    out.print(table)
    if answer.num_rows > ROWS_SHOWN:
        out.print(f"… {counted(answer.num_rows - ROWS_SHOWN, 'more rows')}: use LIMIT or --format")
    if hidden > 0:
        out.print(
            f"… {counted(hidden, 'more columns')}: name those you want instead of *, or use "
            "--format csv, json or parquet",
            soft_wrap=True,
        )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "" if value is None else printable(str(value))
    return text if len(text) <= 120 else text[:119] + "…"


def show_averages(summary: Mapping[str, Any], page: str) -> None:
    """Print an evaluation's averages with their 95 % intervals, and where the page is."""
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
