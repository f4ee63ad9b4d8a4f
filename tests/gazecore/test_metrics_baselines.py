"""The leave-one-image-out centre bias and the gold standard."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp

from gazecore.corpus.osie import read_osie
from gazecore.density.resample import to_size
from gazecore.metrics import goldstandard
from gazecore.metrics.baseline import LeaveOneOutCenterbias
from gazecore.metrics.goldstandard import GoldStandard
from gazecore.metrics.likelihood import information_gain, log_likelihoods
from gazecore.metrics.recording import Recording, recordings
from gazecore.model import centerbias


def uniform(recording: Recording) -> np.ndarray:
    size = recording.height * recording.width
    return np.full((recording.height, recording.width), -np.log(size))


def made_up(images: int, sigma: float, kernel: float, seed: int = 0) -> list[Recording]:
    """Viewers who look near a spot of the image with probability `kernel`, else anywhere."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(images):
        height, width = (60, 90) if i % 2 else (90, 60)
        spot = rng.uniform(25, 35, size=2)
        near = rng.normal(spot, sigma, (60, 2))
        away = rng.random((60, 2)) * (width, height)
        points = np.where(rng.random((60, 1)) < kernel, near, away)
        points = np.clip(points, 0, np.array([width, height]) - 1e-6)
        found.append(Recording(f"{i}", height, width, points, np.repeat(np.arange(6), 10)))
    return found


def test_centre_bias_leaves_the_image_out() -> None:
    corpus = made_up(9, 5, 0.8)
    found = LeaveOneOutCenterbias(corpus)
    others = np.concatenate([r.points / (r.width, r.height) for r in corpus[1:]])
    counts = np.histogram2d(others[:, 1], others[:, 0], bins=128, range=((0, 1), (0, 1)))[0]
    density = gaussian_filter(counts, found.bandwidth * 128, mode="reflect") / len(others)
    expected = (1 - found.uniform_share) * density + found.uniform_share / 128**2
    log_density = found.log_density("0", 90, 60)
    np.testing.assert_allclose(log_density, to_size(np.log(expected), 90, 60), atol=1e-4)
    assert logsumexp(log_density) == pytest.approx(0, abs=1e-4)


def test_centre_bias_of_an_image_that_it_was_not_made_from_is_the_fit() -> None:
    corpus = made_up(9, 5, 0.8)
    scaled = np.concatenate([r.points / (r.width, r.height) for r in corpus])
    fitted = centerbias.fit(*scaled.T, np.repeat(np.arange(9), 60))
    found = LeaveOneOutCenterbias(corpus)
    assert (found.bandwidth, found.uniform_share) == (fitted.bandwidth, fitted.uniform_share)
    expected = to_size(fitted.log_density, 40, 50)
    np.testing.assert_allclose(found.log_density("new", 40, 50), expected, atol=1e-5)


def test_centre_bias_made_from_one_image_is_uniform_on_it() -> None:
    found = LeaveOneOutCenterbias(made_up(1, 5, 0.8))
    np.testing.assert_allclose(found.log_density("0", 30, 40), -np.log(1200), atol=1e-5)


def test_centre_bias_needs_fixations() -> None:
    empty = Recording("a", 5, 5, np.empty((0, 2)), np.empty(0, dtype=int))
    with pytest.raises(ValueError, match="at least one fixation"):
        LeaveOneOutCenterbias([empty])


def test_gold_standard_reads_the_same_densities_that_it_draws() -> None:
    recording = made_up(1, 8, 0.7)[0]
    rng = np.random.default_rng(3)
    prior = gaussian_filter(rng.normal(size=(90, 60)), 9) * 30
    prior -= logsumexp(prior)
    gold = GoldStandard(0.07, (0.7, 0.2, 0.1), ())
    found = gold.log_likelihoods(recording, prior)
    for subject in range(6):
        density = gold.log_density(recording, prior, subject)
        assert logsumexp(density) == pytest.approx(0, abs=1e-12)
        own = recording.subjects == subject
        expected = log_likelihoods(density, recording.points[own])
        np.testing.assert_allclose(found[own], expected, rtol=1e-10)
    # And by scipy, from the definition.
    others = np.floor(recording.points[recording.subjects != 2]).astype(int)
    counts = np.zeros((90, 60))
    np.add.at(counts, (others[:, 1], others[:, 0]), 1 / len(others))
    expected = np.log(
        0.7 * gaussian_filter(counts, 0.07 * 90) + 0.2 * np.exp(prior) + 0.1 / counts.size
    )
    np.testing.assert_allclose(gold.log_density(recording, prior, 2), expected, rtol=1e-10)


def test_a_viewer_alone_is_predicted_from_the_centre_bias() -> None:
    recording = Recording("a", 8, 9, np.array([[2.5, 3.5]]), np.array([4]))
    gold = GoldStandard(0.1, (0.8, 0.15, 0.05), ())
    for subject in (None, 4):
        density = gold.log_density(recording, uniform(recording), subject)
        assert logsumexp(density) == pytest.approx(0, abs=1e-12)
    assert gold.log_likelihoods(recording, uniform(recording)) == pytest.approx([-np.log(72)])
    with pytest.raises(ValueError, match="two viewers"):
        goldstandard.fit([recording], uniform)


def test_gold_standard_finds_the_width_and_the_share_of_common_fixations() -> None:
    corpus = made_up(40, 6, 0.8)
    gold = goldstandard.fit(corpus, uniform)
    # Smoothing 50 fixations of deviation 6 px optimally takes a kernel narrower than that.
    assert 2 < gold.bandwidth * 90 < 6
    # The others' kernel density holds their own stray fixations, so it takes over part of the
    # uniform density's work: more than 0.8, less than all.
    assert 0.8 < gold.weights[0] < 0.95
    assert goldstandard.fit(made_up(40, 6, 1.0), uniform).weights[0] > 0.97
    strangers = goldstandard.fit(made_up(40, 6, 0.0), uniform)
    assert max(trial.information_gain for trial in strangers.trials) < 0.01
    assert sum(gold.weights) == pytest.approx(1)
    best = max(gold.trials, key=lambda trial: trial.information_gain)
    assert (gold.bandwidth, gold.weights) == (best.bandwidth, best.weights)
    again = [gold.log_likelihoods(r, uniform(r)) - uniform(r)[0, 0] for r in corpus]
    assert np.concatenate(again).mean() / np.log(2) == pytest.approx(best.information_gain)
    # No other weights do better at this bandwidth.
    for kernel in (0.7, 0.75, 0.85, 0.9):
        other = GoldStandard(gold.bandwidth, (kernel, (1 - kernel) / 2, (1 - kernel) / 2), ())
        gains = [other.log_likelihoods(r, uniform(r)) - uniform(r)[0, 0] for r in corpus]
        assert np.concatenate(gains).mean() / np.log(2) < best.information_gain


@pytest.mark.corpora
def test_people_explain_more_than_a_bit_of_mit1003(shared: Path) -> None:
    corpus = read_osie(str(shared / "mit1003"))
    everyone = recordings(corpus)
    assert sum(len(r.points) for r in everyone) == 104_171
    row = corpus.fixations.slice(50_000, 1).to_pylist()[0]
    home = everyone[corpus.image_ids.index(row["image_id"])]
    at = np.flatnonzero((home.points == (row["x"], row["y"])).all(axis=1))
    names = sorted(set(corpus.fixations["subject"].to_pylist()))
    assert row["subject"] in [names[home.subjects[i]] for i in at]

    baseline = LeaveOneOutCenterbias(everyone)
    some = everyone[::40]
    priors = {r.image_id: baseline.log_density(r.image_id, r.height, r.width) for r in some}
    gold = goldstandard.fit(some, lambda r: priors[r.image_id], (0.014, 0.02, 0.028, 0.04))
    assert 20 < gold.bandwidth * 1024 < 36
    by_hand = GoldStandard(28 / 1024, (0.84, 0.15, 0.01), ())
    gains = {}
    for name, standard in (("fitted", gold), ("by hand", by_hand)):
        values = [
            standard.log_likelihoods(r, priors[r.image_id])
            - log_likelihoods(priors[r.image_id], r.points)
            for r in some
        ]
        gains[name] = np.concatenate(values).mean() / np.log(2)
    assert gains["fitted"] > gains["by hand"] > 1.1
    # Everyone, not the others: what predicting oneself would pretend.
    r = some[0]
    cheating = information_gain(
        gold.log_density(r, priors[r.image_id]), priors[r.image_id], r.points
    )
    honest = gold.log_likelihoods(r, priors[r.image_id]) - log_likelihoods(
        priors[r.image_id], r.points
    )
    assert cheating.mean() > honest.mean() / np.log(2)
