"""The card of a run's data set: what Hugging Face's `datasets`, the Hub and people read of it."""

import json
import posixpath
from collections.abc import Iterator, Mapping

import pyarrow as pa

import gazecore
from gazecore.results.export import MapKind
from gazecore.results.run import Run
from gazecore.results.status import Status
from gazecore.wording import counted, printable

MEANINGS = {
    "image_id": "the image's name in the input",
    "image": "the image",
    "height": "of the image, pixels",
    "width": "of the image, pixels",
    "information_bits": "KL(density, centre bias): how far the image itself decides where people "
    "look",
    "concentration_bits": "KL(density, uniform): how far people look at the same places",
    "peak_x": "the place of the highest density, pixels from the left",
    "peak_y": "the same, from the top",
    "mean_x": "mean of the density, pixels from the left",
    "mean_y": "the same, from the top",
    "std_x": "standard deviation of the density, pixels",
    "std_y": "the same, vertically",
    "cov_xy": "covariance of both directions, square pixels",
    "area_50": "smallest share of the image's area that holds 50 % of the fixations",
    "area_90": "the same, of 90 %",
    "center_mass": "share of the fixations in the central half, by width and by height",
    "n_peaks": "how many peaks there are",
    "disagreement_bits": "mean KL of the model's members from their mixture; null if there is one",
    "peaks": "places that stand out, the highest first: `x` and `y` in pixels, `height` of the "
    "highest peak's density, `share` of the fixations nearby",
}
_GREY = {
    "density": "the predicted density of fixations, as grey: proportional to it, 255 at its "
    "maximum",
    "ranks": "the predicted density of fixations, as grey: histogram-equalised, each value on "
    "equally many pixels",
}


def card(
    run: Run,
    columns: Mapping[str, str],
    schema: pa.Schema,
    files: str,
    kind: MapKind,
    counts: Status,
    unread: int,
) -> str:
    """A README.md with the front matter of the Hub.

    Args:
        run: whose.
        columns: of the scores, and what they are called in the data set.
        schema: of the data set.
        files: a pattern of its files, within its folder.
        kind: of its column `saliency`.
        counts: of the run.
        unread: how many images could not be read again.
    """
    name = _last(run.location.path)
    model = f"`{_plain(_last(run.model.name)) or 'unnamed'}`"
    trained = f", trained on {_plain(run.model.trained_on)}" if run.model.trained_on else ""
    left_out = [
        (counts.failed, "failed, without a row"),
        (counts.gone, "gone from the input, without a row"),
        (counts.missing, "not scored yet, without a row"),
        (unread, "without `image`, which could not be read again"),
    ]
    front = [
        f"pretty_name: {json.dumps(f'Predicted fixations: {name}', ensure_ascii=False)}",
        "tags: [saliency, eye-tracking, gazecore]",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        f"    path: {files}",
        "dataset_info:",
        "  features:",
        *(f"  {line}" for field in schema for line in _yaml(field.name, field.type)),
    ]
    meanings = {"saliency": _GREY[kind]} | {columns.get(n, n): m for n, m in MEANINGS.items()}
    table = [
        f"| `{_plain(field.name)}` | {meanings.get(field.name, 'as in the input')} |"
        for field in schema
    ]
    text = [
        f"# Predicted fixations: {_plain(name)}",
        "",
        "Where people are predicted to look in the first seconds, for each image: a density of "
        "fixations as a grey picture, and statistics of it. Nobody's eyes were recorded for it.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'data = load_dataset("path/to/this/folder", split="train")',
        'data[0]["saliency"]  # a PIL image of the size of the image',
        "```",
        "",
        "## Columns",
        "",
        "| column | meaning |",
        "|---|---|",
        *table,
        "",
        "Positions are pixels of the upright image; the pixel in column j and row i covers "
        "[j, j + 1) x [i, i + 1).",
        "",
        "## How it was made",
        "",
        f"- Model: {model}{trained}; fingerprint `{run.settings.model}`.",
        f"- Input: `{_plain(_last(run.settings.input))}`, display size "
        f"`{run.settings.display_size}`.",
        f"- {counted(counts.ok, 'images')}"
        + "".join(f"; {what}: {count:,}" for count, what in left_out if count)
        + ".",
        f"- Exported by gazecore {gazecore.__version__} (`gazecore export --format huggingface`).",
        "",
        "## Licence",
        "",
        "This card names none. Images stay their owners', under their terms; the model's weights "
        "and the recordings that it was trained on have terms of their own. Who publishes this "
        "folder adds `license:` above.",
        "",
    ]
    return "\n".join(["---", *front, "---", "", *text])


def _yaml(name: str, kind: pa.DataType) -> Iterator[str]:
    """A feature, as the Hub has it in YAML, of which JSON's strings are a part."""
    yield f"- name: {json.dumps(name, ensure_ascii=False)}"
    if pa.types.is_list(kind):
        yield "  list:"
        for field in kind.value_type:
            yield from (f"  {line}" for line in _yaml(field.name, field.type))
    else:
        yield f"  dtype: {'image' if pa.types.is_struct(kind) else kind}"


def _last(path: str) -> str:
    """Of a path, nothing of where it is on this machine."""
    return posixpath.basename(path.rstrip("/")).partition("?")[0]


def _plain(text: str) -> str:
    """A text that cannot leave its cell or its code."""
    return printable(text).replace("|", "/").replace("`", "'")
