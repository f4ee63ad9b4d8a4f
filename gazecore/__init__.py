"""Fixation densities for image collections of any size, with DeepGaze II.

    import gazecore
    model = gazecore.load()
    density = model.predict("beach.jpg")
    run = gazecore.score("photos", "run")

Plain Python, torch and Arrow: nothing in this package knows about Ray (that is `cluster`) or about
command lines (that is `jobs`). Names below are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gazecore.corpus.schema import Corpus, load_corpus
    from gazecore.density.peaks import Peak
    from gazecore.errors import GazecoreError
    from gazecore.face import compare, crop, evaluate, measure_regions, open_run, report, score
    from gazecore.predictor import Density, Model, load, predict
    from gazecore.results.reader import Results

__version__ = "0.1.0"

__all__ = [
    "Corpus", "Density", "GazecoreError", "Model", "Peak", "Results", "__version__", "compare",
    "crop", "evaluate", "load", "load_corpus", "measure_regions", "open_run", "predict", "report",
    "score",
]  # fmt: skip

_ROOMS = {
    "Corpus": "gazecore.corpus.schema",
    "load_corpus": "gazecore.corpus.schema",
    "GazecoreError": "gazecore.errors",
    "Peak": "gazecore.density.peaks",
    "Results": "gazecore.results.reader",
    **dict.fromkeys(
        ["compare", "crop", "evaluate", "measure_regions", "open_run", "report", "score"],
        "gazecore.face",
    ),
}


def __getattr__(name: str) -> Any:
    if name == "pysaliency":
        return importlib.import_module("gazecore.pysaliency")
    if name not in __all__:
        raise AttributeError(f"module 'gazecore' has no attribute {name!r}")
    return getattr(importlib.import_module(_ROOMS.get(name, "gazecore.predictor")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "pysaliency"])
