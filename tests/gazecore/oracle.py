"""pysaliency, the independent oracle of the metrics; tests that need it skip without it."""

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gazecore.corpus.pysaliency_hdf5 import export_corpus
from gazecore.corpus.schema import Corpus
from gazecore.storage import Location


def load() -> ModuleType:
    """pysaliency, with the two functions that it uses and NumPy 2.4 no longer has."""
    if importlib.util.find_spec("pysaliency") is None:
        pytest.skip("pysaliency, the oracle, is not installed", allow_module_level=True)
    for old, new in (("trapz", "trapezoid"), ("in1d", "isin")):
        if not hasattr(np, old):
            setattr(np, old, getattr(np, new))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pysaliency", reason="pysaliency, the oracle, does not load")


def dataset(points: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> tuple:
    """Stimuli (told apart by their pixels, as pysaliency needs) and Fixations."""
    pysaliency = load()
    images = [np.full((*size, 3), i, dtype=np.uint8) for i, size in enumerate(sizes)]
    image = np.repeat(np.arange(len(points)), [len(p) for p in points])
    x, y = np.concatenate([*points, np.empty((0, 2))]).T
    history = [[] for _ in x]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fixations = (
            pysaliency.Fixations.create_without_history(x, y, image)
            if hasattr(pysaliency.Fixations, "create_without_history")
            else pysaliency.Fixations(x, y, x * 0, history, history, history, image, image * 0)
        )
    return pysaliency.Stimuli(images), fixations


def saliency_model(stimuli, maps: Sequence[np.ndarray]):
    """A pysaliency model that predicts these maps."""
    pysaliency = load()

    class Given(pysaliency.SaliencyMapModel):
        def _saliency_map(self, stimulus):
            return maps[int(stimulus[0, 0, 0])].astype(np.float64)

    return Given()


def density_model(stimuli, log_densities: Sequence[np.ndarray]):
    """A pysaliency model that predicts these log densities."""
    pysaliency = load()

    class Given(pysaliency.Model):
        def _log_density(self, stimulus):
            return log_densities[int(stimulus[0, 0, 0])].astype(np.float64)

    return Given()


def read_back(corpus: Corpus, folder: Path) -> list[tuple[str, float, float]]:
    """Fixations as pysaliency has them that reads the files which gazecore writes of a corpus."""
    pysaliency = load()
    pytest.importorskip("h5py", reason="h5py is not installed")
    export_corpus(corpus, Location(str(folder)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stimuli, fixations = (
            pysaliency.read_hdf5(str(folder / f"{name}.hdf5")) for name in ("stimuli", "fixations")
        )
    sizes = [(row["height"], row["width"]) for row in corpus.images.to_pylist()]
    assert [tuple(shape[:2]) for shape in stimuli.shapes] == sizes
    ids = stimuli.attributes["image_id"]
    rows = zip(fixations.n, fixations.x, fixations.y, strict=True)
    return sorted((str(ids[n]), float(x), float(y)) for n, x, y in rows)


def points_of(corpus: Corpus) -> list[tuple[str, float, float]]:
    """The same of a corpus."""
    return sorted((row["image_id"], row["x"], row["y"]) for row in corpus.fixations.to_pylist())
