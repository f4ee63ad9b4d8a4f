"""docs/results.md, from evaluations that were just made.

python -m benchmarks.results TITLE=EVALUATION_DIR ... > docs/results.md
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gazecore.view.report import METRIC_TITLES

PREDICTORS = {"model": "model", "centerbias": "centre bias", "gold_standard": "gold standard"}

INTRODUCTION = """# Results

What the default model reaches, judged by `gazecore evaluate`. Every figure is an average over
images with its 95 % interval in brackets (bootstrap over images); [metrics.md](metrics.md) says
what each metric is. The centre bias of an image is made from all other images of the corpus. The
gold standard predicts people from people: each viewer from all the others or, where whole maps are
compared (AUC-Judd, CC, KLDiv, SIM), half of the viewers from the other half, which is no ceiling:
the map of half of the viewers is a noisier target than that of all, by which the model is judged.

```sh
gazecore ingest osie path/to/mit1003 --out corpora/mit1003
gazecore ingest osie path/to/osie --out corpora/osie
gazecore evaluate corpora/mit1003 --run mit1003/out_of_fold --out evaluations/mit1003
gazecore evaluate corpora/osie --images held-out --sigma 24 --out evaluations/osie
gazecore evaluate corpora/osie --model mit1003/default.training/pretrained.safetensors \\
    --images held-out --sigma 24 --out evaluations/osie-alone
python -m benchmarks.results \\
    "MIT1003, each image by the fold that has not seen it=evaluations/mit1003" \\
    "OSIE, images held out from all training=evaluations/osie" \\
    "The same, a model trained on OSIE alone=evaluations/osie-alone" > docs/results.md
```

What it was trained on: a readout was pretrained on five sevenths of OSIE, and stopped on one
seventh; the 100 images of the first part took no part in it. From there ten members were trained on
MIT1003, each on eight tenths of it; it stopped on one tenth and is judged on the last.
[model-card.md](model-card.md) has the command, which left `mit1003/` behind.
"""


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluations", nargs="+", metavar="TITLE=EVALUATION_DIR")
    print(INTRODUCTION)
    for argument in parser.parse_args().evaluations:
        title, _, folder = argument.partition("=")
        print(section(title, json.loads((Path(folder) / "summary.json").read_text())))


def section(title: str, summary: Mapping[str, Any]) -> str:
    """One evaluation as Markdown."""
    training = summary["model"]["training"]
    lines = [
        f"## {title}",
        "",
        f"{summary['images']:,} images, {summary['fixations']:,} fixations, "
        f"{summary['viewers']} viewers. Model {summary['model']['fingerprint'].split()[-1][:16]}"
        + (
            f", trained on {training['images']:,} images of {training['corpus']} "
            f"({training['fixations']:,} fixations)."
            if training
            else "."
        ),
        "",
        f"| metric | {' | '.join(PREDICTORS.values())} |",
        "|---|---|---|---|",
    ]
    for metric, found in summary["metrics"].items():
        name, unit = METRIC_TITLES[metric]
        lines.append(f"| {name} ({unit}) | {' | '.join(cell(found[p]) for p in PREDICTORS)} |")
    explained = summary["explained_information_gain"]
    lines.append(f"| Explained information gain | {cell(explained, 100, 1)} % | | |")
    over = summary["metrics_over_fixations"]["information_gain"]
    gold = summary["gold_standard"]
    lines += [
        "",
        f"Over fixations instead of images, information gain is {cell(over['model'])} bit (gold "
        f"standard {cell(over['gold_standard'])}). The gold standard's kernel has a deviation of "
        f"{gold['bandwidth']:.4f} of the longer side, and weights of "
        f"{', '.join(f'{w:.3f}' for w in gold['weights'])} for viewers, centre bias and uniform; "
        f"the centre bias a bandwidth of {summary['centerbias']['bandwidth']:g} and a uniform "
        f"share of {summary['centerbias']['uniform_share']:g}. Maps are smoothed with "
        f"{summary['settings']['sigma']:g} px.",
        "",
    ]
    return "\n".join(lines)


def cell(value: Mapping[str, float] | None, scale: float = 1, digits: int = 3) -> str:
    """Mean and interval."""
    if value is None:
        return "–"
    mean, low, high = (f"{scale * value[k]:.{digits}f}" for k in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main()
