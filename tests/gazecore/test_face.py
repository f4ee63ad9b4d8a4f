"""`import gazecore`: what it takes, what it gives, and what it refuses."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import gazecore
from gazecore.corpus.schema import Corpus
from gazecore.errors import DecodeError, InputError, NotFound, RunFailed
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.schema import SCORES
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.gazecore.test_training import make_corpus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def model(tiny: DeepGaze, tiny_file: str) -> gazecore.Model:
    return gazecore.load(tiny_file)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    make_photo(3, 120, 90).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_an_image_is_the_same_in_every_form(model: gazecore.Model, photo: Path) -> None:
    expected = model.predict(str(photo)).grid
    opened = Image.open(photo)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    opened.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    for form in (
        photo, photo.read_bytes(), f"file://{photo}", opened, np.asarray(opened),
        opened.convert("RGBA"), np.asarray(opened)[:, ::-1][:, ::-1], Image.open(turned),
    ):  # fmt: skip
        np.testing.assert_array_equal(model.predict(form).grid, expected)
    gray = opened.convert("L")
    stacked = np.stack([np.asarray(gray)] * 3, axis=-1)
    np.testing.assert_array_equal(model.predict(gray).grid, model.predict(stacked).grid)


def test_several_images_are_a_list_in_their_order(model: gazecore.Model, photo: Path) -> None:
    other = make_photo(4, 64, 200)
    found = model.predict([photo, other])
    np.testing.assert_array_equal(found[0].grid, model.predict(photo).grid)
    np.testing.assert_array_equal(found[1].grid, model.predict(other).grid)
    assert found[1].log_density.shape == (200, 64)
    assert model.predict([]) == []


def test_a_density_is_what_a_run_stores(
    model: gazecore.Model, photo: Path, tiny_file: str, tmp_path: Path
) -> None:
    density = model.predict(photo)
    assert density.log_density.shape == (90, 120)
    assert density.log_density.dtype == np.float32
    for log_density in (density.log_density, density.grid, *density.members):
        assert np.exp(log_density.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    run = gazecore.score(photo, tmp_path / "run", model=tiny_file)
    [row] = run.scores.to_pylist()
    numbers = pa.Table.from_pylist([{**row, **density.statistics}], SCORES)
    assert numbers.to_pylist() == [row]
    peak = density.peaks[0]
    assert (peak.x, peak.y, peak.height) == (
        pytest.approx(row["peak_x"]), pytest.approx(row["peak_y"]), 1.0,
    )  # fmt: skip
    assert len(density.peaks) == row["n_peaks"]
    assert all(0.1 <= peak.height <= 1 for peak in density.peaks)
    assert 0 < sum(peak.share for peak in density.peaks) <= 1
    stored = run.density("photo.png")
    # Stored on a quarter of the grid's side, in steps of 1/32 nat.
    assert float((np.exp(stored) * (stored - density.log_density)).sum()) < 0.01


def test_a_density_is_drawn(model: gazecore.Model, photo: Path) -> None:
    density = model.predict(photo)
    picture = Image.open(io.BytesIO(density._repr_png_()))
    assert picture.size == density.overlay().size
    assert max(density.overlay(legend=False, longer_side=300).size) == 300
    assert "120x90" in repr(density)
    assert "tiny" in repr(model)


@pytest.mark.parametrize(
    ("image", "fix"),
    [
        (np.zeros((8, 9, 3)), r"image \* 255"),
        (np.zeros((8, 9, 3), np.int64), r"astype\(np\.uint8\)"),
        (np.zeros((2, 8, 9, 3), np.uint8), r"predict\(list\(images\)\)"),
        (np.zeros((3, 8, 9), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((8, 9), np.uint8), r"np\.stack"),
        (np.zeros((8, 9, 4), np.uint8), r"\[\.\.\., :3\]"),
        (np.zeros((8, 9, 2), np.uint8), r"\(h, w, 3\)"),
        (np.zeros((0, 9, 3), np.uint8), r"\(h, w, 3\)"),
        (np.zeros(9, np.uint8), r"\(h, w, 3\)"),
        (None, "give a path"),
        (7, "give a path"),
    ],
)
def test_what_is_no_image_is_refused_with_the_way_to_make_one(
    model: gazecore.Model, image: object, fix: str
) -> None:
    with pytest.raises(InputError, match=fix):
        model.predict(image)  # type: ignore[call-overload]
    with pytest.raises(InputError, match=fix):
        model.predict([image])


def test_images_that_cannot_be_read_raise_what_is_wrong(model: gazecore.Model) -> None:
    with pytest.raises(NotFound):
        model.predict("/nowhere/photo.jpg")
    with pytest.raises(DecodeError):
        model.predict(b"no picture")
    with pytest.raises(InputError, match="pixels"):
        model.predict(np.broadcast_to(np.zeros(3, np.uint8), (20_000, 20_000, 3)))


def test_a_run_is_scored_continued_and_asked(photos: Path, tmp_path: Path, tiny_file: str) -> None:
    told: list[int] = []
    run = gazecore.score(photos, tmp_path / "run", model=tiny_file, limit=4,
                         report=lambda tally: told.append(tally.ok))  # fmt: skip
    assert run.scores.num_rows == told[-1] == 4
    run = gazecore.score(photos, tmp_path / "run", model=tiny_file)
    assert run.scores.num_rows == 10
    [row] = run.query("SELECT count(*) AS n FROM scores WHERE status = 'ok'").to_pylist()
    assert row == {"n": 10}
    again = gazecore.open_run(tmp_path / "run")
    assert again.scores.equals(run.scores)
    np.testing.assert_array_equal(again.density("a/photo-1.jpg"), run.density("a/photo-1.jpg"))
    with pytest.raises(InputError, match="not a run directory"):
        gazecore.open_run(tmp_path)
    # A folder in the place of a file: the shard cannot be written.
    obstacle = tmp_path / "other" / "densities" / "shard-000000.parquet" / "in the way"
    gazecore.score(photos, tmp_path / "other", model=tiny_file, limit=1)
    (tmp_path / "other" / "scores" / "shard-000000.parquet").unlink()
    obstacle.parent.unlink()
    obstacle.mkdir(parents=True)
    with pytest.raises(RunFailed, match="the same call tries them again"):
        gazecore.score(photos, tmp_path / "other", model=tiny_file, limit=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder).save(Location(str(folder / "corpus")))
    return gazecore.load_corpus(str(folder / "corpus"))


def test_a_model_and_its_run_are_judged_alike(
    model: gazecore.Model, corpus: Corpus, tmp_path: Path, tiny_file: str
) -> None:
    metrics = ("information_gain", "auc")
    found = gazecore.evaluate(model, corpus, metrics=metrics, limit=6)
    assert found.images.num_rows == 6
    assert found.summary["model"]["fingerprint"] == model.bundle.fingerprint
    assert found.summary["corpus"]["uri"] == corpus.uri
    listed = tmp_path / "list.csv"
    rows = [f"{row['image_id']},{row['uri']}" for row in corpus.images.to_pylist()]
    listed.write_text("image_id,uri\n" + "\n".join(rows))
    run = gazecore.score(listed, tmp_path / "run", model=tiny_file, density_factor=1)
    by_run = gazecore.evaluate(run, corpus, metrics=metrics, limit=6)
    assert by_run.images.equals(found.images)
    assert by_run.summary["metrics"] == found.summary["metrics"]
    with pytest.raises(InputError, match="held out none"):
        gazecore.evaluate(model, corpus, images="held-out")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_model_is_one_of_pysaliencys(model: gazecore.Model) -> None:
    import pysaliency

    images = [np.asarray(make_photo(seed, 80, 60)) for seed in (1, 2)]
    stimuli = pysaliency.Stimuli([*images, images[0][..., 0]])
    rng = np.random.default_rng(0)
    xs, ys = rng.uniform(0, 80, (6, 5)), rng.uniform(0, 60, (6, 5))
    trains = pysaliency.FixationTrains.from_fixation_trains(
        list(xs), list(ys), [np.arange(5)] * 6, [0, 0, 1, 1, 2, 2], [0, 1] * 3
    )
    theirs = gazecore.pysaliency.Model(model)
    for stimulus, image in zip(stimuli, images, strict=False):
        expected = model.predict(image).log_density
        np.testing.assert_array_equal(theirs.log_density(stimulus), expected)
        np.testing.assert_array_equal(theirs.log_density(stimulus), expected)  # from its cache
        np.testing.assert_allclose(theirs.saliency_map(stimulus), np.exp(expected), rtol=1e-6)
    points = [(int(y), int(x)) for y, x in zip(trains.y, trains.x, strict=True)]
    likelihoods = [theirs.log_density(stimuli[n])[p] for n, p in zip(trains.n, points, strict=True)]
    np.testing.assert_allclose(theirs.log_likelihoods(stimuli, trains), likelihoods)
    uniform = pysaliency.UniformModel()
    gain = (np.mean(likelihoods) + np.log(80 * 60)) / np.log(2)
    assert theirs.information_gain(stimuli, trains, uniform) == pytest.approx(gain)
    assert 0 < theirs.AUC(stimuli, trains) < 1
    assert np.isfinite(theirs.NSS(stimuli, trains))


def test_it_is_loaded_when_it_is_used() -> None:
    program = (
        "import sys, gazecore; print(*sys.modules); assert 'load' in dir(gazecore); "
        "gazecore.load_corpus; assert 'torch' not in sys.modules"
    )
    modules = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT).split()
    assert "gazecore" in modules
    assert {"numpy", "torch", "pyarrow", "ray"}.isdisjoint(modules)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        gazecore.lode  # noqa: B018
    assert all(getattr(gazecore, name) for name in gazecore.__all__)
