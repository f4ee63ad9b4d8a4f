"""Others' maps: found, read, taken for densities, and judged as pysaliency judges them."""

import importlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp

import gazecore
from gazecore.corpus.schema import Corpus
from gazecore.density.resample import to_size
from gazecore.errors import InputError
from gazecore.evaluation import conversion
from gazecore.evaluation.conversion import Conversion
from gazecore.evaluation.maps import Maps, _matched
from gazecore.evaluation.outputs import describe, evaluate_densities
from gazecore.evaluation.settings import EvaluationConfig, MapsAre
from gazecore.metrics.kernels import fixation_map
from gazecore.metrics.recording import recordings
from tests.gazecore import oracle
from tests.gazecore.test_evaluation import log_density, make_corpus

IMAGES = range(5)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    (tmp_path / "photos").mkdir()
    return make_corpus(tmp_path / "photos")


def maps_of(corpus: Corpus, levels: float = 250) -> dict[str, np.ndarray]:
    """A map of each image of its size: what draws people, to the power of a half, in 0..levels."""
    rows = corpus.images.to_pylist()
    found = {}
    for i in IMAGES:
        size = rows[i]["height"], rows[i]["width"]
        density = np.exp(to_size(log_density(i), *size).astype(np.float64))
        found[rows[i]["image_id"]] = np.sqrt(density / density.max()) * levels
    return found


def write(folder: Path, maps: dict[str, np.ndarray], kind: str) -> str:
    """As files or as one; returns the source. A folder's names are like the images', but for their
    suffix, and lie in another one."""
    if kind == "npz":
        np.savez(folder / "maps.npz", **{name.removesuffix(".png"): m for name, m in maps.items()})  # type: ignore[arg-type]
        return str(folder / "maps.npz")
    if kind == "hdf5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(folder / "maps.hdf5", "w") as file:
            for name, values in maps.items():
                file.create_dataset(f"stimuli/{name}", data=values)
        return str(folder / "maps.hdf5")
    (folder / "maps" / "unisal").mkdir(parents=True)
    for name, values in maps.items():
        path = folder / "maps" / "unisal" / name
        if kind == "npy":
            np.save(path.with_suffix(".npy"), values)
        elif kind == "png":
            Image.fromarray(values.round().astype(np.uint8)).save(path)
        elif kind == "png16":
            Image.fromarray(values.round().astype(np.uint16)).save(path)
        else:
            grey = np.stack([values.round().astype(np.uint8)] * 3, axis=-1)
            Image.fromarray(grey).save(path.with_suffix(".tif"))
    return str(folder / "maps")


@pytest.mark.parametrize("kind", ["npz", "hdf5", "npy", "png", "png16", "colours"])
def test_maps_are_found_and_read_in_every_form(corpus: Corpus, tmp_path: Path, kind: str) -> None:
    maps = maps_of(corpus, 60000 if kind == "png16" else 250)
    chosen = corpus.image_ids[:5]
    found = Maps(corpus, chosen, write(tmp_path, maps, kind), "density")
    exact = kind in ("npz", "hdf5", "npy")
    for image_id in chosen:
        expected = maps[image_id] if exact else maps[image_id].round()
        np.testing.assert_array_equal(found.saliency(image_id), expected)
        density = expected / expected.sum()
        np.testing.assert_allclose(np.exp(found.of_model(image_id)), density, rtol=1e-12)
    assert found.images == chosen
    assert found.left_out == {}


def spoilt(maps: dict[str, np.ndarray], how: str) -> dict[str, np.ndarray]:
    first = next(iter(maps))
    broken = dict(maps)
    match how:
        case "missing":
            del broken[first]
        case "size":
            broken[first] = maps[first][1:]
        case "nan":
            broken[first] = np.where(maps[first] == maps[first].max(), np.nan, maps[first])
        case "negative":
            broken[first] = maps[first] - 10
        case "dimensions":
            broken[first] = maps[first][..., None]
        case "complex":
            broken[first] = maps[first] * 1j
        case "zeros":
            broken[first] = maps[first] * 0
        case "text":
            broken[first] = np.full(maps[first].shape, "a")
    return broken


@pytest.mark.parametrize(
    ("how", "values", "said"),
    [
        ("missing", "saliency", "has no map of 1 image, such as photo <0>.png"),
        ("size", "saliency", r"has 64x47 values, its image 64x48 pixels"),
        ("dimensions", "density", "its image 64x48 pixels"),
        ("nan", "saliency", "not finite"),
        ("text", "density", "values that are no numbers"),
        ("complex", "density", "values that are no numbers"),
        ("zeros", "density", "is 0 everywhere"),
        ("negative", "density", "below 0"),
        ("nothing", "log-density", "is no log density: its exponentials sum to"),
    ],
)
def test_maps_that_cannot_be_judged_are_named(
    corpus: Corpus, tmp_path: Path, how: str, values: MapsAre, said: str
) -> None:
    source = write(tmp_path, spoilt(maps_of(corpus), how), "npz")

    def judged() -> None:
        list(Maps(corpus, corpus.image_ids[:5], source, values))

    with pytest.raises(InputError, match=said) as error:
        judged()
    assert len(str(error.value).splitlines()) == 1


def test_other_files_than_maps_are_one_line(corpus: Corpus, tmp_path: Path) -> None:
    chosen = corpus.image_ids[:5]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no maps: PNG"):
        Maps(corpus, chosen, str(tmp_path / "empty"), "density")
    (tmp_path / "a.npz").write_bytes(b"no zip")
    (tmp_path / "b.hdf5").write_bytes(b"no hdf")
    whole = Path(write(tmp_path, maps_of(corpus), "npz")).read_bytes()
    (tmp_path / "c.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.npz").write_bytes(b"")
    for name in ("a.npz", "b.hdf5", "c.npz", "d.npz", "gone.npz"):
        with pytest.raises(InputError, match=r"cannot read the maps"):
            Maps(corpus, chosen, str(tmp_path / name), "density")
    colours = write(tmp_path, maps_of(corpus), "png")
    make = np.zeros((48, 64, 3), np.uint8)
    make[..., 0] = 200
    Image.fromarray(make).save(tmp_path / "maps" / "unisal" / chosen[0])
    with pytest.raises(InputError, match="in colours"):
        Maps(corpus, chosen, colours, "saliency")
    # Two maps of one name: neither is taken. Nor is one for two images.
    (tmp_path / "maps" / "old").mkdir()
    Image.fromarray(make).save(tmp_path / "maps" / "old" / chosen[1])
    with pytest.raises(InputError, match=r"which is photo <1>.png's map"):
        Maps(corpus, chosen, colours, "density")
    with pytest.raises(InputError, match=r"1.npy would be the map of a/1.png and of b/1.png"):
        _matched(["1.npy"], ["a/1.png", "b/1.png"], "theirs")
    assert _matched(["1.npy", "b/1.npy"], ["b/1.png"], "theirs") == {"b/1.png": "b/1.npy"}


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b"", "cannot be read"),
        (b"\x93NUMPY", "cannot be read"),
        (npy(np.zeros((48, 64)))[:-9], "cannot be read"),
        (npy(np.array([[{}] * 64] * 48, dtype=object)), "cannot be read: Object arrays"),
        (npy(np.zeros((2, 2))).replace(b"(2, 2)", b"(9999999, 9999999)"), "values, its image"),
    ],
)
def test_damaged_arrays_are_one_line(
    corpus: Corpus, tmp_path: Path, damage: bytes, said: str
) -> None:
    source = write(tmp_path, maps_of(corpus), "npy")
    first = corpus.image_ids[0]
    (tmp_path / "maps" / "unisal" / first).with_suffix(".npy").write_bytes(damage)
    found = Maps(corpus, corpus.image_ids[:5], source, "density")
    with pytest.raises(InputError, match=said) as error:
        found.saliency(first)
    assert len(str(error.value).splitlines()) == 1


def test_grey_pictures_with_transparency_are_maps(corpus: Corpus, tmp_path: Path) -> None:
    source = write(tmp_path, maps_of(corpus), "png")
    first = corpus.image_ids[0]
    path = tmp_path / "maps" / "unisal" / first
    grey = Image.open(path)
    expected = np.asarray(grey).astype(np.float64)
    for mode in ("LA", "RGBA"):
        grey.convert(mode).save(path)
        found = Maps(corpus, corpus.image_ids[:5], source, "density")
        np.testing.assert_array_equal(found.saliency(first), expected)


def test_a_conversion_is_pysaliencys() -> None:
    """With the same numbers, pysaliency's torch module makes the same log densities."""
    oracle.load()
    from pysaliency.saliency_map_conversion_torch import SaliencyMapProcessing

    rng = np.random.default_rng(0)
    ours = Conversion(
        2.0, 9.0, 0.06, np.sort(rng.uniform(0, 6, 20)), rng.uniform(0.5, 1.5, 12), 0.8
    )
    for height, width in ((40, 60), (60, 40), (33, 33)):
        saliency = gaussian_filter(rng.uniform(0, 12, (height, width)), 2)  # some beyond 2..9
        sigma = 0.06 * max(height, width)
        theirs = SaliencyMapProcessing(
            blur_radius=sigma, nonlinearity_target="density", nonlinearity_values="logdensity"
        )
        with torch.no_grad():
            theirs.nonlinearity.ys.copy_(torch.from_numpy(ours.log_levels))
            theirs.centerbias.nonlinearity.ys.copy_(torch.from_numpy(ours.centre))
            theirs.centerbias.alpha.copy_(torch.tensor(0.8))
            scaled = np.clip((saliency - 2) / 7, 0, 1).astype(np.float32)
            expected = theirs(torch.from_numpy(scaled)[None, None])[0, 0].numpy()
        found = ours.log_density(saliency)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        assert logsumexp(found) == pytest.approx(0, abs=1e-5)


def test_a_fitted_conversion_undoes_what_was_done_to_a_density(corpus: Corpus) -> None:
    """Maps that are the true density under a root and a scale: their best density comes near to
    its likelihood, and the map's own scale does not matter."""
    judged = [r for r in recordings(corpus) if len(r.points)]
    maps = maps_of(corpus)
    fitted = conversion.fit(maps.__getitem__, judged)
    rows = {r["image_id"]: i for i, r in enumerate(corpus.images.to_pylist())}

    def likelihood(found: np.ndarray, points: np.ndarray) -> float:
        x, y = np.floor(points).astype(int).T
        return float(found[y, x].mean())

    gap = [
        likelihood(to_size(log_density(rows[r.image_id]), r.height, r.width), r.points)
        - likelihood(fitted.log_density(maps[r.image_id]), r.points)
        for r in judged
    ]
    assert np.mean(gap) < 0.1
    untouched = np.mean(
        [
            likelihood(np.log(maps[r.image_id] / maps[r.image_id].sum()), r.points)
            - likelihood(fitted.log_density(maps[r.image_id]), r.points)
            for r in judged
        ]
    )
    assert untouched < -0.2  # dividing by the sum is far worse
    other = conversion.fit(lambda i: 0.001 * maps[i] - 7, judged)
    for r in judged:
        np.testing.assert_allclose(
            other.log_density(0.001 * maps[r.image_id] - 7),
            fitted.log_density(maps[r.image_id]),
            atol=0.02,
        )


def test_an_image_is_judged_by_a_conversion_that_has_not_seen_it(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[set[str]] = []
    real = conversion.fit

    def watched(maps: conversion.Maps, others: list[object]) -> Conversion:
        fitted.append({r.image_id for r in others})  # type: ignore[attr-defined]
        return real(maps, others)  # type: ignore[arg-type]

    monkeypatch.setattr(conversion, "fit", watched)
    chosen = corpus.image_ids[:5]
    found = Maps(corpus, chosen, write(tmp_path, maps_of(corpus), "npy"), "saliency")
    assert len(fitted) == 5
    for image_id in chosen:
        apart = [seen for seen in fitted if image_id not in seen]
        assert apart == [set(chosen) - {image_id}]
    with pytest.raises(InputError, match="at least two images"):
        Maps(corpus, chosen[:1], found.source, "saliency")


@pytest.mark.parametrize("values", ["saliency", "density", "log-density"])
def test_every_figure_is_pysaliencys(corpus: Corpus, tmp_path: Path, values: MapsAre) -> None:
    """The same maps, and for likelihoods the same conversion, through pysaliency."""
    maps = maps_of(corpus)
    if values == "log-density":
        maps = {i: np.log(m / m.sum()) for i, m in maps.items()}
    chosen = corpus.image_ids[:5]
    found = Maps(corpus, chosen, write(tmp_path, maps, "npy"), values)
    config = EvaluationConfig(sigma=4.0)
    about = describe(corpus, found, "theirs", None, {}, "centerbias", {})
    result = evaluate_densities(corpus, found, config, about)
    assert result.summary["maps_are"] == values
    rows = {row["image_id"]: row for row in result.images.to_pylist()}
    judged = [r for r in recordings(corpus) if len(r.points)]
    sizes = [(r.height, r.width) for r in judged]
    stimuli, fixations = oracle.dataset([r.points for r in judged], sizes)
    densities = oracle.density_model(stimuli, [found.of_model(r.image_id) for r in judged])
    gains = densities.log_likelihoods(stimuli, fixations)
    at = np.repeat(range(5), [len(r.points) for r in judged])
    for number, recording in enumerate(judged):
        row = rows[recording.image_id]
        uniform = np.log(recording.height * recording.width)
        expected = (gains[at == number].mean() + uniform) / np.log(2)
        assert row["log_likelihood_model"] == pytest.approx(expected, abs=1e-5)
    if values != "saliency":
        return
    metrics = importlib.import_module("pysaliency.metrics")
    saliency = oracle.saliency_model(stimuli, [maps[r.image_id] for r in judged])
    aucs, nss = (f(stimuli, fixations) for f in (saliency.AUCs, saliency.NSSs))
    for number, recording in enumerate(judged):
        row = rows[recording.image_id]
        assert row["auc_model"] == pytest.approx(aucs[at == number].mean(), abs=1e-9)
        assert row["nss_model"] == pytest.approx(nss[at == number].mean(), abs=1e-9)
        empirical = fixation_map(recording.points, recording.height, recording.width, 4.0)
        own = maps[recording.image_id]
        assert row["cc_model"] == pytest.approx(metrics.CC(own, empirical), abs=1e-9)
        assert row["sim_model"] == pytest.approx(metrics.SIM(own, empirical), abs=1e-9)
        with np.errstate(divide="ignore"):
            divergence = metrics.MIT_KLDiv(own, empirical)
        assert row["kldiv_model"] == pytest.approx(divergence, abs=1e-9)


def test_maps_are_judged_from_python(corpus: Corpus, tmp_path: Path) -> None:
    source = write(tmp_path, maps_of(corpus), "npy")
    found = gazecore.evaluate(source, corpus, maps_are="density", sigma=4.0)
    maps = Maps(corpus, corpus.image_ids[:5], source, "density")
    expected = evaluate_densities(corpus, maps, EvaluationConfig(sigma=4.0), {})
    assert found.images.equals(expected.images)
    assert found.summary["maps_are"] == "density"
    assert found.summary["left_out"] == {"images without fixations": 1}
    over_uniform = gazecore.evaluate(source, corpus, maps_are="density", baseline="uniform")
    gains, likelihoods = (
        over_uniform.images[f"{name}_model"].to_numpy()
        for name in ("information_gain", "log_likelihood")
    )
    np.testing.assert_allclose(gains, likelihoods, atol=1e-6)
