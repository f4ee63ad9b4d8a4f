"""Runs as other programs read them: through the real pysaliency, and as pictures."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.special import logsumexp

from gazecore.density.resample import normalise, to_size
from gazecore.errors import InputError
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.metrics.likelihood import information_gain, log_likelihoods
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.export import (
    MapKind,
    dataset_names,
    export_run,
    picture_names,
    saliency_map,
    write_arrays,
    write_maps,
    write_model,
)
from gazecore.results.reader import Results
from gazecore.results.run import Run, RunSettings, begin_run
from gazecore.shards.planning import update_plan
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.gazecore import oracle
from tests.scoring import score_run

Densities = Iterator[tuple[str, np.ndarray]]


def score(source: Path | str, out: Path, model: DeepGaze, shard_size: int = 4) -> Run:
    """A finished run, without Ray."""
    settings = RunSettings(str(source), model.bundle.fingerprint, "1024", shard_size, 4, Limits())
    run = begin_run(Location(str(out)), settings)
    update_plan(run, list_images(str(source)))
    score_run(run, model)
    return run


def image_ids(run: Run) -> list[str]:
    ids: list[str] = Results(run).plan()["image_id"].to_pylist()
    return ids


@pytest.fixture
def scored(photos: Path, tmp_path: Path, tiny: DeepGaze) -> Run:
    """Ten photographs in two folders, and a file that is none."""
    (photos / "a" / "broken.png").write_bytes(b"\x89PNG and nothing more")
    return score(photos, tmp_path / "run", tiny)


# ---------------------------------------------------------------------------------- for pysaliency


@pytest.fixture
def models() -> Any:
    """pysaliency's module of models that are read from files."""
    pytest.importorskip("h5py", reason="h5py is not installed")
    oracle.load()
    return importlib.import_module("pysaliency.precomputed_models")


@pytest.mark.filterwarnings("ignore")  # pysaliency's own warnings are not ours to fix
def test_pysaliency_finds_the_same_information_gain(
    models: Any, scored: Run, photos: Path, tmp_path: Path
) -> None:
    results, names = Results(scored), dataset_names(image_ids(scored))
    model, baseline = (Location(str(tmp_path / name)) for name in ("m.hdf5", "b.hdf5"))
    assert write_model(results.densities(), names, model) == 10
    rng = np.random.default_rng(1)
    centered = {
        image_id: to_size(normalise(rng.normal(size=(6, 6))), *density.shape)
        for image_id, density in results.densities()
    }
    write_model(centered.items(), names, baseline)

    ids = sorted(centered, key=lambda i: i[::-1])  # not in the file's order
    points = {i: rng.random((7, 2)) * centered[i].shape[::-1] for i in ids}
    pysaliency = oracle.load()
    stimuli = pysaliency.FileStimuli([str(photos / i) for i in ids])
    assert [stimulus.size for stimulus in stimuli] == [centered[i].shape for i in ids]
    x, y = np.concatenate([points[i] for i in ids]).T
    fixations = pysaliency.Fixations.create_without_history(x, y, np.repeat(np.arange(10), 7))
    theirs, their_baseline = (models.HDF5Model(stimuli, m.path) for m in (model, baseline))
    likelihoods, gains = [], []
    for image_id in ids:
        density = results.density(image_id)
        likelihoods.append(log_likelihoods(density, points[image_id]))
        gains.append(information_gain(density, centered[image_id], points[image_id]))
    assert np.abs(np.concatenate(gains)).max() > 0.1
    for found, expected in (
        (theirs.log_likelihoods(stimuli, fixations), likelihoods),
        (theirs.information_gains(stimuli, fixations, their_baseline), gains),
    ):
        assert np.abs(found - np.concatenate(expected)).max() < 1e-6
    for stimulus, image_id in zip(stimuli, ids, strict=True):
        assert np.array_equal(theirs.log_density(stimulus), results.density(image_id))


@pytest.mark.filterwarnings("ignore")
def test_a_list_of_absolute_paths_is_found_from_any_root(
    models: Any, photos: Path, tmp_path: Path, tiny: DeepGaze
) -> None:
    paths = sorted(photos.rglob("*.jpg"))
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths)))
    run = score(tmp_path / "list.txt", tmp_path / "run", tiny)
    names = dataset_names(image_ids(run))
    assert sorted(names.values()) == [str(p.relative_to(photos)) for p in paths]
    write_model(Results(run).densities(), names, Location(str(tmp_path / "m.hdf5")))
    photos.rename(tmp_path / "elsewhere")
    moved = [str(tmp_path / "elsewhere" / p.relative_to(photos)) for p in paths]
    stimuli = oracle.load().FileStimuli(moved)
    model = models.HDF5Model(stimuli, str(tmp_path / "m.hdf5"))
    found = model.log_density(stimuli[3])
    assert np.array_equal(found, Results(run).density(str(paths[3])))


def test_the_model_file_is_normalised_float32_and_the_same_each_time(
    scored: Run, tmp_path: Path
) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    names = dataset_names(image_ids(scored))
    for name in ("one", "two"):
        write_model(Results(scored).densities(), names, Location(str(tmp_path / name)))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with h5py.File(tmp_path / "one") as file:
        assert sorted(file) == ["a", "b"]
        dataset = file["a/photo-1.jpg"]
        assert (dataset.dtype, dataset.shape) == (np.float32, (96, 64))
        assert logsumexp(dataset[:].astype(float)) == pytest.approx(0, abs=1e-6)


def breaking_off(densities: Densities, after: int) -> Densities:
    for _ in range(after):
        yield next(densities)
    raise OSError("the storage is gone")


@pytest.mark.parametrize("storage", ["local", "memory"])
def test_a_model_that_breaks_off_leaves_nothing(scored: Run, tmp_path: Path, storage: str) -> None:
    pytest.importorskip("h5py", reason="h5py is not installed")
    folder = str(tmp_path / "out") if storage == "local" else "memory://test-export"
    out, names = Location(folder) / "m.hdf5", dataset_names(image_ids(scored))
    with pytest.raises(OSError, match="gone"):
        write_model(breaking_off(Results(scored).densities(), 5), names, out)
    assert Location(folder).names() == []
    write_model(Results(scored).densities(), names, out)
    before = out.read_bytes()
    with pytest.raises(OSError, match="gone"):
        write_model(breaking_off(Results(scored).densities(), 5), names, out)
    assert out.read_bytes() == before
    assert Location(folder).names() == ["m.hdf5"]
    out.remove()


# ------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["a.jpg", "Art/001.jpg"], ["a.jpg", "Art/001.jpg"]),
        (["x/a.jpg", "x/b.jpg"], ["x/a.jpg", "x/b.jpg"]),
        (["./a.jpg", "./x/./b.jpg"], ["a.jpg", "x/b.jpg"]),
        (["s3://b/p/a.jpg", "s3://b/p/q/b.jpg"], ["a.jpg", "q/b.jpg"]),
        (["s3://b/p/a.jpg"], ["a.jpg"]),
        (["/x/../p/a.jpg", "/x/../p/b.jpg"], ["a.jpg", "b.jpg"]),
        (["/data//p/a.jpg", "/data//q/a.jpg"], ["p/a.jpg", "q/a.jpg"]),
        (["http://one/a.jpg", "http://two/a.jpg"], ["one/a.jpg", "two/a.jpg"]),
        (["ünï 日本", "a:b*?"], ["ünï 日本", "a:b*?"]),
        ([], []),
    ],
)
def test_datasets_are_named_by_the_end_of_the_path(ids: list[str], expected: list[str]) -> None:
    assert dataset_names(ids) == dict(zip(ids, expected, strict=True))


HOSTILE = [
    ["../a.jpg"],
    ["x/../../a.jpg", "b.jpg"],
    ["/etc/passwd", "a.jpg"],
    ["s3://b/a.jpg", "a.jpg"],
    ["/x/../../etc/a.jpg", "/y/a.jpg"],
    ["x//a.jpg", "b.jpg"],
    ["x/"],
    ["."],
    [""],
    ["a\0.jpg"],
    ["file:///", "file:///a"],
]


@pytest.mark.parametrize("name", [dataset_names, picture_names])
@pytest.mark.parametrize("ids", HOSTILE, ids=map(repr, HOSTILE))
def test_ids_that_are_no_names_are_refused_in_one_line(ids: list[str], name: Any) -> None:
    with pytest.raises(InputError) as caught:
        name(ids)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "ids", "folder"),
    [
        (dataset_names, ["a", "a/b"], "a"),
        (dataset_names, ["x/y/z/u/v", "b", "x/y/z"], "x/y/z"),
        (picture_names, ["a.jpg", "a.png/b.jpg"], "a.png"),
    ],
)
def test_an_image_that_is_a_folder_of_another_is_refused(
    name: Any, ids: list[str], folder: str
) -> None:
    with pytest.raises(InputError, match=f"would be {folder}, which has to be a folder"):
        name(ids)


def test_two_images_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match=r"'\./a\.jpg' and 'a\.jpg' would both be a\.jpg"):
        dataset_names(["./a.jpg", "a.jpg"])


def test_pictures_are_named_without_the_images_suffix_and_numbered() -> None:
    ids = ["a.jpg", "a.png", "x/a.jpg", "a.TIFF", "a-2.jpg", "v1.25", "v1.50", ".jpg", "b.jpg.png"]
    assert picture_names(ids) == {
        "a.jpg": "a.png",
        "a.png": "a-3.png",
        "x/a.jpg": "x/a.png",
        "a.TIFF": "a-4.png",
        "a-2.jpg": "a-2.png",
        "v1.25": "v1.25.png",
        "v1.50": "v1.50.png",
        ".jpg": ".jpg.png",
        "b.jpg.png": "b.jpg.png",
    }


# -------------------------------------------------------------------------------------------- maps


@pytest.mark.parametrize("kind", ["density", "ranks"])
def test_maps_keep_the_order_of_the_pixels(scored: Run, kind: MapKind) -> None:
    for _, log_density in Results(scored).densities():
        grey = saliency_map(log_density, kind)
        assert grey.dtype == np.uint8
        assert grey.shape == log_density.shape
        order = np.argsort(log_density, axis=None)
        assert (np.diff(grey.ravel()[order].astype(int)) >= 0).all()
        assert grey.max() == 255
        if kind == "density":
            expected = np.exp(log_density) / np.exp(log_density).max() * 255
            assert np.abs(grey - expected).max() <= 0.51
        else:
            counts = np.bincount(grey.ravel(), minlength=256)
            assert np.abs(counts - grey.size / 256).max() <= 1


@pytest.mark.parametrize("kind", ["density", "ranks"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (40, 50)])
def test_maps_of_any_size_and_of_one_grey(kind: MapKind, shape: tuple[int, int]) -> None:
    flat = saliency_map(np.full(shape, -np.log(np.prod(shape)), np.float32), kind)
    assert (flat == 255).all()
    steps = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    assert saliency_map(steps, kind)[-1, -1] == 255


def test_far_from_the_peak_ranks_tell_pixels_apart_that_the_density_does_not() -> None:
    y, x = np.mgrid[-3:3:90j, -4:4:120j]
    peaked = -2 * (x**2 + y**2)
    assert (saliency_map(peaked, "density") == 0).mean() > 0.7
    assert (saliency_map(peaked, "ranks") == 0).mean() < 0.01


def test_pictures_have_the_images_size_and_leave_others_alone(scored: Run, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    (out / "a").mkdir(parents=True)
    (out / "a" / "mine.txt").write_text("mine")
    names = picture_names(image_ids(scored))
    found = []
    for _ in range(2):
        densities = Results(scored).densities()
        assert write_maps(densities, names, Location(str(out)), "density") == 10
        found.append({p: p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert found[0] == found[1]
    pictures = {str(p.relative_to(out)) for p in found[0]}
    assert pictures == {"a/mine.txt"} | {f"{'ab'[1 - n % 2]}/photo-{n}.png" for n in range(10)}
    for image_id, log_density in Results(scored).densities():
        with Image.open(out / names[image_id]) as picture:
            assert picture.mode == "L"
            assert picture.size == log_density.shape[::-1]
            assert np.array_equal(np.asarray(picture), saliency_map(log_density, "density"))


def test_an_escape_writes_nothing(tmp_path: Path, tiny: DeepGaze) -> None:
    make_photo(1).save(tmp_path / "p.png")
    (tmp_path / "list.csv").write_text("uri,image_id\np.png,../../outside\n")
    run = score(tmp_path / "list.csv", tmp_path / "run", tiny)
    before = set(tmp_path.rglob("*"))
    for name in (dataset_names, picture_names):
        with pytest.raises(InputError, match=r"\.\./\.\./outside"):
            name(image_ids(run))
    assert set(tmp_path.rglob("*")) == before


# ------------------------------------------------------------------------------------------ arrays


def test_arrays_open_without_pickle_and_say_whose_they_are(scored: Run, tmp_path: Path) -> None:
    out, ids = tmp_path / "arrays", image_ids(scored)
    names = picture_names(ids, ".npz")
    found = []
    for _ in range(2):
        assert write_arrays(Results(scored).densities(), names, Location(str(out))) == 10
        found.append({p: p.read_bytes() for p in out.rglob("*.npz")})
    assert found[0] == found[1]
    assert len(found[0]) == 10
    for image_id, log_density in Results(scored).densities():
        with np.load(out / names[image_id], allow_pickle=False) as file:
            assert sorted(file) == ["image_id", "log_density", "made_by"]
            assert file["image_id"].item() == image_id
            assert file["made_by"].item() == "gazecore"
            assert file["log_density"].dtype == np.float32
            assert np.array_equal(file["log_density"], log_density)


def foreign_npz(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("mine")
    elif kind == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "pickle":
        np.savez(path, made_by=np.array(["gazecore"], dtype=object))
    else:
        np.savez(path, log_density=np.zeros((2, 2)))


@pytest.mark.parametrize("kind", ["text", "array", "pickle", "arrays"])
def test_arrays_of_others_are_kept_and_our_own_replaced(
    scored: Run, tmp_path: Path, kind: str
) -> None:
    out = Location(str(tmp_path / "arrays"))
    for _ in range(2):
        assert export_run(Results(scored), out, "npz").made == 10
    theirs = tmp_path / "arrays" / "b" / "photo-4.npz"
    foreign_npz(theirs, kind)
    (tmp_path / "arrays" / "a" / "photo-1.npz").unlink()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.npz")}
    with pytest.raises(InputError, match=r"photo-4\.npz is there, and gazecore did not make it"):
        export_run(Results(scored), out, "npz")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.npz")} == before
    export_run(Results(scored), out, "npz", overwrite=True)
    assert np.load(theirs)["image_id"] == "b/photo-4.jpg"
