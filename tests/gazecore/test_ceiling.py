"""The ceiling of each image by itself, in closed form."""

from pathlib import Path

import numpy as np
import pytest

from gazecore.evaluation.densities import Densities
from gazecore.evaluation.outputs import describe, evaluate_densities, write_evaluation
from gazecore.evaluation.settings import EvaluationConfig
from gazecore.metrics import ceiling
from gazecore.metrics.recording import Recording
from gazecore.storage import Location
from tests.gazecore.test_evaluation import make_corpus, make_run

HEIGHT, WIDTH = 40, 60
FLAT = np.full((HEIGHT, WIDTH), -np.log(HEIGHT * WIDTH))


def recording(points: np.ndarray, subjects: list[int]) -> Recording:
    return Recording("a", HEIGHT, WIDTH, points, np.array(subjects))


def peaked(x: int, y: int, mass: float) -> np.ndarray:
    """So much mass on a pixel, the rest spread evenly."""
    density = np.full((HEIGHT, WIDTH), (1 - mass) / (HEIGHT * WIDTH - 1))
    density[y, x] = mass
    return np.log(density)


def test_a_model_that_knows_is_all_of_the_mixture() -> None:
    """Everybody looks at one pixel, but each viewer at another: others tell nothing, the model
    everything."""
    points = np.array([[10.5, 10.5], [50.5, 30.5], [30.5, 5.5]])
    density = np.full((HEIGHT, WIDTH), 1e-9)
    for x, y in np.floor(points).astype(int):
        density[y, x] = 1 / 3
    model = np.log(density / density.sum())
    found = ceiling.log_likelihoods(recording(points, [0, 1, 2]), FLAT, model)
    np.testing.assert_allclose(found, np.log(1 / 3), atol=0.01)


def test_two_parts_that_know_half_each_are_mixed_evenly() -> None:
    """Of four fixations the centre bias knows two, the model two, and nobody else anything: the
    most likely weights are a half each."""
    points = np.array([[5.5, 5.5], [55.5, 35.5], [5.5, 5.5], [55.5, 35.5]])
    one, other = peaked(5, 5, 0.9), peaked(55, 35, 0.9)
    # Two viewers far apart: kernels know nothing of the other's place at these bandwidths.
    found = ceiling.log_likelihoods(recording(points, [0, 1, 0, 1]), one, other)
    np.testing.assert_allclose(found, np.log(0.45), atol=0.01)


def test_kernels_are_densities_and_narrower_where_fixations_lie_close() -> None:
    rng = np.random.default_rng(0)
    close = rng.normal((15, 20), 1, (20, 2))
    far = rng.uniform((0, 0), (WIDTH, HEIGHT), (5, 2))
    points = np.concatenate([close, far]).clip(0, (WIDTH - 1, HEIGHT - 1))
    x, y = np.floor(points).astype(int).T
    factors = ceiling._factors(recording(points, [0] * 25), x, y)
    assert factors[:20].max() < factors[20:].min()
    assert np.log(factors).mean() == pytest.approx(0, abs=1e-12)
    sigmas = 2 * factors
    down = ceiling._kernels(y, HEIGHT, sigmas, np.repeat(np.arange(HEIGHT), WIDTH))
    across = ceiling._kernels(x, WIDTH, sigmas, np.tile(np.arange(WIDTH), HEIGHT))
    np.testing.assert_allclose((down * across).sum(axis=1), 1, rtol=1e-12)


def test_the_ceiling_is_above_each_of_its_parts() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal((30, 20), 6, (60, 2)).clip(0, (WIDTH - 1, HEIGHT - 1))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    logs = [-(((x - 30) / s) ** 2 + ((y - 20) / s) ** 2) / 2 for s in (5.0, 20.0)]
    model, prior = (log - np.log(np.exp(log).sum()) for log in logs)
    whole = recording(points, list(range(6)) * 10)
    found = ceiling.log_likelihoods(whole, prior, model)
    at = tuple(np.floor(points).astype(int).T[::-1])
    for part in (model, prior, FLAT):
        assert found.sum() >= part[at].sum() - 1e-3
    # A viewer's own fixations do not predict them: alone there is nobody to predict from.
    assert np.isnan(ceiling.log_likelihoods(recording(points, [0] * 60), prior, model)).all()


def test_an_evaluation_gives_both_shares(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    run = make_run(tmp_path / "run", corpus, [0, 1, 2, 3, 4])
    densities = Densities(corpus, corpus.image_ids[:5], run.location.uri, "centerbias")
    config = EvaluationConfig(metrics=("information_gain",), sigma=4.0, ceiling=True)
    found = evaluate_densities(corpus, densities, config, {})
    gains, limit = (
        found.images[f"information_gain_{name}"].to_numpy() for name in ("model", "ceiling")
    )
    assert (limit >= gains - 1e-3).all()
    share = found.summary["ceiling"]["explained_information_gain"]
    assert share["mean"] == pytest.approx(gains.sum() / limit.sum(), rel=1e-9)
    about = describe(corpus, densities, "m", None, {}, "centerbias", {})
    judged = evaluate_densities(corpus, densities, config, {**about, "asked": {"limit": None}})
    write_evaluation(Location(str(tmp_path / "out")), judged, corpus, densities)
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"{100 * share['mean']:.1f} %" in page
    assert "the model itself" in page
    plain = evaluate_densities(corpus, densities, EvaluationConfig(sigma=4.0), {})
    assert "ceiling" not in plain.summary
    assert "information_gain_ceiling" not in plain.images.column_names
