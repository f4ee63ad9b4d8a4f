"""Another centre bias for a model."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from gazecore.errors import GazecoreError
from gazecore.model import centerbias
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.tiny import TinyBackbone
from gazecore.predictor import Model
from gazecore.prior import with_centerbias
from gazecore.results.run import open_run
from gazecore.results.settings import ScoringOptions
from gazecore.scoring import Request
from gazecore.shards import local
from gazecore.storage import Location
from tests.gazecore.test_training import make_corpus


def test_a_uniform_centre_takes_the_centre_away(tiny: DeepGaze) -> None:
    pixels = np.zeros((1, 64, 96, 3), np.uint8)  # nothing to see
    bundle = with_centerbias(tiny.bundle, "uniform")
    found = DeepGaze(bundle, TinyBackbone()).predict(pixels)
    np.testing.assert_allclose(found.centerbias, -np.log(32 * 48), atol=1e-5)
    np.testing.assert_allclose(found.log_density, -np.log(32 * 48), atol=1e-4)
    own = tiny.predict(pixels)
    assert own.log_density.max() - own.log_density.min() > 0.1
    assert bundle.fingerprint not in ("", tiny.bundle.fingerprint)
    assert with_centerbias(bundle, "uniform").fingerprint == bundle.fingerprint
    assert with_centerbias(bundle, None) is bundle


def test_a_file_a_bundle_and_a_corpus_give_theirs(
    tiny: DeepGaze, tiny_file: str, tmp_path: Path
) -> None:
    log_density = np.log(np.random.default_rng(0).dirichlet(np.ones(12)).reshape(3, 4))
    np.save(tmp_path / "bias.npy", log_density)
    found = with_centerbias(tiny.bundle, str(tmp_path / "bias.npy")).centerbias
    np.testing.assert_allclose(found, log_density, rtol=1e-6)
    assert torch.equal(with_centerbias(tiny.bundle, tiny_file).centerbias, tiny.bundle.centerbias)
    corpus = make_corpus(tmp_path)
    corpus.save(Location(str(tmp_path / "corpus")))
    fitted = with_centerbias(tiny.bundle, str(tmp_path / "corpus")).centerbias
    sizes = {row["image_id"]: (row["width"], row["height"]) for row in corpus.images.to_pylist()}
    points = [found / sizes[image_id] for image_id, found in corpus.points().items() if len(found)]
    groups = np.repeat(np.arange(len(points)), [len(found) for found in points])
    expected = centerbias.fit(*np.concatenate(points).T, groups).log_density
    np.testing.assert_array_equal(fitted, expected)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4)), "is no log density"),
        (np.zeros(4), r"must be \(rows, columns\)"),
        (np.zeros((0, 4)), r"must be \(rows, columns\)"),
        (np.zeros((1, 5000)), "at most 4,096"),
        (np.full((2, 2), np.nan), "finite"),
        (np.zeros((2, 2), int), "floating point"),
        (np.array([[None]]), "cannot read"),
        (None, "cannot read"),
    ],
)
def test_what_is_no_centre_bias_is_one_line(
    tiny: DeepGaze, tmp_path: Path, array: np.ndarray | None, message: str
) -> None:
    file = tmp_path / "bias.npy"
    if array is not None:
        np.save(file, array, allow_pickle=True)
    with pytest.raises(GazecoreError, match=message) as caught:
        with_centerbias(tiny.bundle, str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.safetensors"])
def test_where_nothing_is_nothing_is_taken(tiny: DeepGaze, tmp_path: Path, name: str) -> None:
    with pytest.raises(GazecoreError, match=name):
        with_centerbias(tiny.bundle, str(tmp_path / name))


def test_a_run_with_another_centre_bias_is_another_models(
    tiny: DeepGaze, tiny_file: str, photos: Path, tmp_path: Path
) -> None:
    options = ScoringOptions(tiny_file, centerbias="uniform")
    scoring = Request(str(photos), str(tmp_path / "run"), options).begin()
    local.run(scoring.run, scoring.config)
    assert open_run(scoring.run.location).model.name.endswith(", centre bias uniform")
    rows = [
        row
        for path in sorted((tmp_path / "run" / "scores").iterdir())
        for row in pq.read_table(path).to_pylist()
    ]
    bundle = with_centerbias(tiny.bundle, "uniform")
    model = Model("tiny", DeepGaze(bundle, TinyBackbone()), "1024")
    for row in rows:
        # Over a uniform centre bias, what the image decides is all that is concentrated.
        assert row["information_bits"] == pytest.approx(row["concentration_bits"], abs=1e-4)
        expected = model.predict(row["uri"]).statistics["information_bits"]
        assert row["information_bits"] == pytest.approx(expected, abs=1e-4)
    # Left out, it is the run's; another is refused.
    again = Request(str(photos), str(tmp_path / "run"), ScoringOptions(tiny_file)).begin()
    assert again.to_do == 0
    other = ScoringOptions(tiny_file, centerbias=tiny_file)
    with pytest.raises(GazecoreError, match="model"):
        Request(str(photos), str(tmp_path / "run"), other).begin()
