"""This model, UNISAL and the centre bias on the same images, by the same metrics.

    python -m benchmarks.peers --unisal ENV/bin/python --osie CORPUS --out DIR \\
        [--mit1003 CORPUS --run MIT1003_OUT_OF_FOLD --images 1003]

None has seen the judged images' fixations: of OSIE those that the default model's training held
out, of MIT1003 each by the member whose fold it was. `unisal_maps.py` says what ENV needs. UNISAL's
maps are probabilities and judged as densities; with `--fitted` as maps, too, likelihoods by a
conversion fitted to other images (`gazecore evaluate --maps`), and of the first fifty images each
metric is compared with pysaliency's.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import gazecore
from benchmarks.environment import report
from gazecore.corpus.schema import Corpus
from gazecore.evaluation.densities import Densities
from gazecore.evaluation.maps import Maps
from gazecore.evaluation.outputs import describe, evaluate_densities
from gazecore.evaluation.selection import HELD_OUT, select_images
from gazecore.evaluation.settings import EvaluationConfig
from gazecore.metrics.kernels import fixation_map
from gazecore.metrics.recording import recordings
from gazecore.model.bundle import load_bundle
from tests.gazecore import oracle

SIGMA = {"osie": 24.0, "mit1003": 35.0}
LIMIT = 1e-5
"""Of a likelihood, whose densities are float32; the others differ by less than 1e-9."""


def unisal(python: str, corpus: Corpus, chosen: list[str], folder: Path) -> float | None:
    """Make UNISAL's maps of the images that have none yet; returns the seconds of an image, its
    process's start with them, or None if all were there."""
    folder.mkdir(parents=True, exist_ok=True)
    uris = dict(zip(corpus.image_ids, corpus.images["uri"].to_pylist(), strict=True))
    names = {i: Path(i).stem for i in chosen}
    missing = [i for i in chosen if not (folder / f"{names[i]}.npy").exists()]
    started = time.monotonic()
    lines = "".join(f"{uris[i].removeprefix('file://')}\t{names[i]}\n" for i in missing)
    script = Path(__file__).parent / "unisal_maps.py"
    subprocess.run([python, script, folder], input=lines, text=True, check=True)
    return (time.monotonic() - started) / len(missing) if missing else None


def averages(summary: dict[str, Any], predictor: str) -> dict[str, Any]:
    """Each metric of a predictor, and its share of the gold standard."""
    found = {metric: values[predictor] for metric, values in summary["metrics"].items()}
    if predictor == "model":
        found["explained_information_gain"] = summary["explained_information_gain"]
    return found


def largest_difference(corpus: Corpus, maps: Maps, images: Any, sigma: float) -> dict[str, float]:
    """Of each metric of fifty images from pysaliency's, by the same maps and conversion."""
    metrics = importlib.import_module("pysaliency.metrics")
    rows = {row["image_id"]: row for row in images.to_pylist()}
    judged = [r for r in recordings(corpus) if r.image_id in rows][:50]
    points = [r.points for r in judged]
    stimuli, fixations = oracle.dataset(points, [(r.height, r.width) for r in judged])
    saliency = [maps.saliency(r.image_id) for r in judged]
    theirs = oracle.saliency_model(stimuli, saliency)
    densities = oracle.density_model(stimuli, [maps.of_model(r.image_id) for r in judged])
    at = np.repeat(range(len(judged)), [len(p) for p in points])
    uniform = np.log([r.height * r.width for r in judged])[at]
    of_fixations = {
        "auc": theirs.AUCs(stimuli, fixations),
        "nss": theirs.NSSs(stimuli, fixations),
        "log_likelihood": (densities.log_likelihoods(stimuli, fixations) + uniform) / np.log(2),
    }
    found = {
        metric: [values[at == n].mean() for n in range(len(judged))]
        for metric, values in of_fixations.items()
    }
    for recording, own in zip(judged, saliency, strict=True):
        empirical = fixation_map(recording.points, recording.height, recording.width, sigma)
        for metric, judge in (
            ("cc", metrics.CC),
            ("sim", metrics.SIM),
            ("kldiv", metrics.MIT_KLDiv),
        ):
            found.setdefault(metric, []).append(judge(own, empirical))
    return {
        metric: float(
            np.abs(np.subtract(values, [rows[r.image_id][f"{metric}_model"] for r in judged])).max()
        )
        for metric, values in found.items()
    }


def main() -> int:
    """Run it; 1 where a figure differs from pysaliency's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--unisal", required=True, help="the Python of UNISAL's environment")
    parser.add_argument("--osie", required=True)
    parser.add_argument("--mit1003", help="left out: OSIE alone")
    parser.add_argument("--run", help="MIT1003's out-of-fold densities")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--images", type=int, default=1003, help="of MIT1003")
    parser.add_argument("--fitted", action="store_true", help="UNISAL as maps, too; an hour")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    worst = 0.0
    for name in ("osie", "mit1003") if arguments.mit1003 else ("osie",):
        corpus = gazecore.load_corpus(getattr(arguments, name))
        config = EvaluationConfig(sigma=SIGMA[name])
        if name == "osie":
            held_out = load_bundle().training.held_out(corpus.digest, corpus.image_ids)
            chosen, _ = select_images(corpus, HELD_OUT, None, held_out)
            model = gazecore.load()
            ours = gazecore.evaluate(model, corpus, images=HELD_OUT, sigma=config.sigma).summary
        else:
            chosen = [i for i, p in corpus.points().items() if len(p)][: arguments.images]
            densities = Densities(corpus, chosen, arguments.run, "centerbias")
            about = describe(corpus, densities, "gazecore", None, {}, "centerbias", {})
            ours = evaluate_densities(corpus, densities, config, about).summary
        seconds = unisal(arguments.unisal, corpus, chosen, arguments.out / name)
        densities_too = Maps(corpus, chosen, str(arguments.out / name), "density")
        about = describe(corpus, densities_too, "UNISAL", None, {}, "centerbias", {})
        as_densities = evaluate_densities(corpus, densities_too, config, about).summary
        found[name] = {
            "images": len(chosen),
            "gazecore": averages(ours, "model"),
            "unisal_densities": averages(as_densities, "model"),
            "centerbias": averages(ours, "centerbias"),
            "unisal_seconds_an_image": seconds,
        }
        if arguments.fitted:
            maps = Maps(corpus, chosen, str(arguments.out / name), "saliency")
            about = describe(corpus, maps, "UNISAL", None, {}, "centerbias", {})
            theirs = evaluate_densities(corpus, maps, config, about)
            differences = largest_difference(corpus, maps, theirs.images, config.sigma)
            worst = max(worst, *differences.values())
            found[name]["unisal"] = averages(theirs.summary, "model")
            found[name]["differences_from_pysaliency"] = differences
        print(json.dumps({name: found[name]}), file=sys.stderr, flush=True)
    report("peers", model=asdict(gazecore.load().bundle.training)["corpus"], **found)
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
