"""docs/results.md, from evaluations that were just made.

python -m benchmarks.results TITLE=EVALUATION_DIR ... > docs/results.md
"""

import argparse
import json
import textwrap
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

Beside the share of the gold standard is that of a higher ceiling (`--ceiling`): for each image the
best mixture of the other viewers, the centre bias, the uniform density and the model itself.

```sh
gazecore ingest osie path/to/mit1003 --out corpora/mit1003
gazecore ingest osie path/to/osie --out corpora/osie
gazecore ingest osie path/to/eyecrowd --out corpora/eyecrowd
gazecore evaluate corpora/mit1003 --run mit1003/out_of_fold --ceiling --out evaluations/mit1003
gazecore evaluate corpora/osie --images held-out --sigma 24 --ceiling --out evaluations/osie
gazecore evaluate corpora/eyecrowd --images held-out --metrics information_gain auc nss \\
    --out evaluations/eyecrowd
python -m benchmarks.cached mit1003-features open mit1003-open
gazecore evaluate corpora/mit1003 --run mit1003-open --metrics information_gain auc nss \\
    --out evaluations/mit1003-open
gazecore evaluate corpora/osie --model open --images held-out --sigma 24 --out evaluations/osie-open
python -m benchmarks.peers --unisal unisal/bin/python --osie corpora/osie \\
    --mit1003 corpora/mit1003 --run mit1003/out_of_fold --images 200 --out peers > peers.json
python -m benchmarks.results --peers peers.json \\
    "MIT1003, each image by the fold that has not seen it=evaluations/mit1003" \\
    "OSIE, images held out from all training=evaluations/osie" \\
    "EyeCrowd, images held out from all training=evaluations/eyecrowd" \\
    "MIT1003, the bundle open, which has seen none of it=evaluations/mit1003-open" \\
    "OSIE, images held out from all training, the bundle open=evaluations/osie-open" \\
    > docs/results.md
```

What it was trained on: a readout was pretrained on six sevenths of OSIE and of EyeCrowd; the 100
and 72 images of the first parts took no part in anything. From there ten members were trained on
nine tenths of MIT1003 each, beside the same images of OSIE and EyeCrowd, and are judged on the last
tenth. [model-card.md](model-card.md) has the commands, which left `mit1003/` behind. They were
repeated for this page, on another processor than the shipped bundle's: the weights differ by their
rounding, and so the fingerprint.
"""

PEERS = {
    "gazecore": "gazecore",
    "unisal_densities": "UNISAL, as densities",
    "unisal": "UNISAL, as maps",
    "centerbias": "centre bias",
}
CORPORA = {"osie": "OSIE, held out", "mit1003": "MIT1003, out of fold"}


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluations", nargs="+", metavar="TITLE=EVALUATION_DIR")
    parser.add_argument("--peers", type=Path, help="what `benchmarks.peers` printed")
    arguments = parser.parse_args()
    print(INTRODUCTION)
    for argument in arguments.evaluations:
        title, _, folder = argument.partition("=")
        print(wrapped(section(title, json.loads((Path(folder) / "summary.json").read_text()))))
    if arguments.peers:
        print(wrapped(side_by_side(json.loads(arguments.peers.read_text().splitlines()[-1]))))


def wrapped(text: str) -> str:
    """Markdown whose lines are as wide as the documents', but for tables."""
    return "\n".join(
        line if line.startswith("|") else textwrap.fill(line, 100, break_on_hyphens=False)
        for line in text.split("\n")
    )


def side_by_side(found: Mapping[str, Any]) -> str:
    """This model and its peers as Markdown."""
    lines = [
        "## Peers",
        "",
        "UNISAL (Droste, Jiao & Noble 2020; the weights that have not seen MIT1003, for images) "
        "and the centre bias on the same images. Its maps are probabilities: they are judged as "
        "this model's densities are, with the map that suits each metric.",
        "",
    ]
    if all("differences_from_pysaliency" in found[corpus] for corpus in CORPORA if corpus in found):
        lines += [
            "As maps they are judged as they are, which costs them shuffled AUC above all, and for "
            "likelihoods a blur, a rising nonlinearity and a centre bias are fitted to others "
            "([maps.md](maps.md)). Of the first fifty images, each metric is compared with "
            "pysaliency's for the same conversion; the largest differences of an image are "
            f"{largest_differences(found)}.",
            "",
        ]
    for corpus, title in ((corpus, title) for corpus, title in CORPORA.items() if corpus in found):
        own = found[corpus]
        names = [m for m in METRIC_TITLES if m in own["gazecore"]]
        peers = {peer: called for peer, called in PEERS.items() if peer in own}
        lines += [
            f"| {title}, {own['images']:,} images | {' | '.join(peers.values())} |",
            "|---" * (len(peers) + 1) + "|",
        ]
        lines += [
            f"| {METRIC_TITLES[m][0]} | {' | '.join(cell(own[p][m]) for p in peers)} |"
            for m in names
        ]
        shares = [cell(own[p].get("explained_information_gain"), 100, 1) for p in peers]
        lines += [f"| Explained information gain, % | {' | '.join(shares)} |", ""]
    return "\n".join(lines)


def largest_differences(found: Mapping[str, Any]) -> str:
    """Of each metric from pysaliency's, in words."""
    of = [found[corpus]["differences_from_pysaliency"] for corpus in CORPORA if corpus in found]
    worst = {metric: max(one[metric] for one in of) for metric in of[0]}
    return ", ".join(f"{METRIC_TITLES[m][0]} {value:.0e}" for m, value in worst.items())


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
    if ceiling := summary.get("ceiling"):
        share = cell(ceiling["explained_information_gain"], 100, 1)
        over = cell(ceiling["information_gain"])
        lines.append(f"| Share of the ceiling, which is {over} bit | {share} % | | |")
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
