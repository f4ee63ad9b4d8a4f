"""Tables on a terminal."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from rich.measure import Measurement
from rich.table import Table

from gazecore.evaluation.settings import PREDICTORS
from gazecore.wording import counted, printable
from jobs.console import out, show_rows

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_SHOWN, RECORDS_SHOWN = 200, 20
COLUMN_WIDTH = 12
"""Of a terminal, at least; narrower ones cannot be read."""
_LONGEST = 120
"""Characters of a value."""


def show_answer(answer: "pa.Table") -> None:
    """Print the first rows of a query's answer: a line each where the terminal is wide enough for
    its columns, else a line for each of their values."""
    if answer.column_names == ["explain_key", "explain_value"]:
        for text in answer["explain_value"].to_pylist():
            out.print(text, soft_wrap=True)
        return
    is_wide = answer.num_columns > max(1, out.width // COLUMN_WIDTH)
    shown = answer.slice(0, RECORDS_SHOWN if is_wide else ROWS_SHOWN)
    (_show_records if is_wide else _show_table)(shown)
    if hidden := answer.num_rows - shown.num_rows:
        out.print(f"… {counted(hidden, 'more rows')}: use LIMIT or --format", soft_wrap=True)


def _show_table(answer: "pa.Table") -> None:
    import pyarrow as pa

    table = Table(box=None, padding=(0, 2, 0, 0))
    for field in answer.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(
            printable(field.name), justify="right" if numeric else "left", overflow="fold"
        )
    for row in zip(*(column.to_pylist() for column in answer.columns), strict=True):
        table.add_row(*(_cell(value) for value in row))
    out.print(table)


def _show_records(answer: "pa.Table") -> None:
    names = [printable(name) for name in answer.column_names]
    for number, row in enumerate(
        zip(*(column.to_pylist() for column in answer.columns), strict=True), start=1
    ):
        out.print(f"row {number}")
        # Two spaces before a name, and two behind the longest one.
        left = max(COLUMN_WIDTH, out.width - max(map(len, names)) - 4)
        values = [
            _cell(value, left if isinstance(value, list | dict) else _LONGEST) for value in row
        ]
        show_rows([(f"  {name}", value) for name, value in zip(names, values, strict=True)])


def _cell(value: object, longest: int = _LONGEST) -> str:
    """A value as text; lists, of which one cannot see the end, in what is left of a line."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | dict):
        value = json.dumps(value, default=str)
    text = "" if value is None else printable(str(value))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def show_averages(summary: Mapping[str, Any], page: str) -> None:
    """Print an evaluation's averages with their 95 % intervals, and where the page is."""
    from gazecore.view.report import CEILING, METRIC_TITLES, share_of

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
        share = _interval(summary["explained_information_gain"])
        rows.append(("explained information gain", f"{share} {share_of(summary)}"))
    if found := summary.get("ceiling"):
        rows.append(("ceiling", f"{_interval(found['information_gain'])} bit, {CEILING}"))
        rows.append(("share of the ceiling", _interval(found["explained_information_gain"])))
    if summary["seen_in_training"]:
        rows.append(
            ("caution", f"the model was trained on {summary['seen_in_training']:,} of these images")
        )
    show_rows([*rows, ("page", page)])


def _interval(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "–"
    return f"{value['mean']:z.3f} [{value['low']:z.3f}, {value['high']:z.3f}]"
