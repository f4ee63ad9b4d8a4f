"""Two runs compared: closed forms, a run against itself, pairs, fixations, and the page."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import distance
from scipy.stats import rankdata

import gazecore
from gazecore.comparison.measure import COMPARISON, MOST, RANKED, STATISTICS
from gazecore.density.resample import normalise, to_size
from gazecore.errors import InputError
from gazecore.images.formats import Limits
from gazecore.images.listing import listing_of
from gazecore.metrics.divergence import jensen_shannon
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.reader import Results
from gazecore.results.run import RunSettings, begin_run
from gazecore.results.write import commit_shard
from gazecore.shards.plan import shards
from gazecore.shards.planning import update_plan
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.gazecore.test_evaluation import make_corpus
from tests.gazecore.test_export import score
from tests.gazecore.test_overlay import bump
from tests.scoring import rows_of

# ------------------------------------------------------------------------------------- arithmetic


def test_divergence_in_closed_form() -> None:
    here, there = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert jensen_shannon(here, here) == 0
    assert jensen_shannon(here, there) == 1
    half = np.array([[0.5, 0.5]])
    # Their mean is (3/4, 1/4): half of log2(4/3), and half of KL of (1/2, 1/2) from it.
    expected = (np.log2(4 / 3) + (np.log2(2 / 3) + np.log2(2)) / 2) / 2
    assert jensen_shannon(here, half) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_divergence_is_scipys(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, q = rng.random((2, height, width)) ** 4 * (rng.random((2, height, width)) > 0.2)
    p[0, 0] = q[-1, -1] = 0.1
    p, q = p / p.sum(), q / q.sum()
    found = jensen_shannon(p, q)
    assert found == pytest.approx(distance.jensenshannon(p.ravel(), q.ravel(), 2) ** 2, abs=1e-9)
    assert found == pytest.approx(jensen_shannon(q, p), abs=1e-12)
    assert 0 <= found <= 1


# -------------------------------------------------------------------------------------------- runs


def made_up(folder: Path, densities: dict[str, np.ndarray], scale: int = 1) -> Results:
    """A run of images of 72 x 48 pixels, or so many times as large, in shards of two."""
    settings = RunSettings("made", "made up", "1024", 2, 1, Limits())
    run = begin_run(Location(str(folder)), settings)
    update_plan(run, listing_of(pa.table({"image_id": list(densities), "uri": list(densities)})))
    for shard in shards(run):
        scores, stored = [], []
        for row in shard.images.select(["image_id", "uri"]).to_pylist():
            score_row, density_row = map(dict, rows_of(row, densities[row["image_id"]], 1))
            for name in ("height", "width"):
                score_row[name] *= scale
                density_row[name] *= scale
            for name in ("peak_x", "peak_y", "mean_x", "mean_y", "std_x", "std_y"):
                score_row[name] *= scale
            score_row["cov_xy"] *= scale**2
            scores.append(score_row)
            stored.append(density_row)
        commit_shard(run, shard.number, scores, stored)
    return Results(run)


def at(x: float, y: float, sigma: float = 0.1) -> np.ndarray:
    return bump(24, 36, x, y, sigma)


def test_a_shift_in_closed_form(tmp_path: Path) -> None:
    a = made_up(tmp_path / "a", {"1": at(10.5 / 36, 8.5 / 24), "2": at(0.5, 0.5)})
    b = made_up(tmp_path / "b", {"1": at(16.5 / 36, 12.5 / 24), "2": at(0.5, 0.5, 0.05)})
    found = gazecore.compare(a, b, tmp_path / "out")
    moved, narrowed = found.images.to_pylist()
    # Six cells to the right, four down; a cell is 2 pixels.
    assert (moved["peak_x_change"], moved["peak_y_change"]) == (12, 8)
    assert moved["peak_shift"] == pytest.approx(np.hypot(12, 8))
    assert moved["peak_shift_share"] == pytest.approx(np.hypot(12, 8) / np.hypot(72, 48))
    p, q = (np.exp(run.density("1"), dtype=float) for run in (a, b))
    assert moved["js_bits"] == pytest.approx(jensen_shannon(p, q), abs=1e-9)
    assert moved["cc"] == pytest.approx(np.corrcoef(p.ravel(), q.ravel())[0, 1], abs=1e-6)
    assert narrowed["peak_shift"] == pytest.approx(0, abs=1e-6)
    # Half as wide both ways: a quarter of the area, two bits more.
    assert narrowed["concentration_bits_change"] == pytest.approx(2, abs=0.1)
    assert narrowed["std_x_change"] == pytest.approx(-72 * 0.05, abs=0.1)


def test_an_image_of_another_size_is_stretched(tmp_path: Path) -> None:
    one = {"1": at(10.5 / 36, 8.5 / 24)}
    small, large = made_up(tmp_path / "a", one), made_up(tmp_path / "b", one, scale=3)
    found = gazecore.compare(small, large, tmp_path / "out")
    assert found.summary["other_size"] == 1
    [row] = found.images.to_pylist()
    assert row["same_size"] is False
    assert (row["js_bits"], row["peak_shift"]) == (0, pytest.approx(0, abs=1e-5))
    for name in STATISTICS:
        if name != "disagreement_bits":
            assert row[f"{name}_change"] == pytest.approx(0, abs=1e-3), name
    # The shift is in pixels of the first.
    [row] = gazecore.compare(
        large, made_up(tmp_path / "c", {"1": at(16.5 / 36, 8.5 / 24)}), tmp_path / "out"
    ).images.to_pylist()
    assert row["peak_shift"] == pytest.approx(36)


@pytest.fixture
def first(photos: Path, tmp_path: Path, tiny: DeepGaze) -> Results:
    (photos / "a" / "broken.png").write_bytes(b"\x89PNG and nothing more")
    return Results(score(photos, tmp_path / "first", tiny))


@pytest.fixture
def second(photos: Path, tmp_path: Path, tiny: DeepGaze, first: Results) -> Results:
    """Of the same photographs, one replaced, one gone and one new, in another order of shards."""
    make_photo(77, 64, 96).save(photos / "a" / "photo-1.jpg")
    make_photo(78, 80, 80).save(photos / "b" / "photo-2.jpg")
    (photos / "b" / "photo-0.jpg").unlink()
    make_photo(79).save(photos / "a" / "new.jpg")
    return Results(score(photos, tmp_path / "second", tiny, shard_size=3))


def test_a_run_against_itself_is_all_zeros(first: Results, tmp_path: Path) -> None:
    found = gazecore.compare(first, first, tmp_path / "out")
    table = found.images
    assert table.schema.equals(COMPARISON)
    assert table.num_rows == 10
    for name in table.column_names[3:]:
        expected = 1 if name == "cc" else 0
        assert table[name].null_count == 0
        assert np.abs(table[name].to_numpy() - expected).max() <= (1e-9 if name == "cc" else 0)
    for name, values in found.summary["averages"].items():
        for value in values.values():
            assert value == pytest.approx(1.0 if name == "cc" else 0.0, abs=1e-9)
    for name, values in found.summary["statistics"].items():
        assert {*values["change"].values()} == {0.0}
        if name in RANKED and values["rank_correlation"] is not None:
            assert values["rank_correlation"] == pytest.approx(1)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "None: all densities are the same" in page
    assert "data:image/jpeg" not in page


def test_two_runs(first: Results, second: Results, tmp_path: Path) -> None:
    found = gazecore.compare(first, second, tmp_path / "out")
    assert found.summary["left_out"] == {
        "images of the first run alone": 1, "images of the second run alone": 1,
    }  # fmt: skip
    rows = {row["image_id"]: row for row in found.images.to_pylist()}
    assert list(rows) == [i for i, _ in first.densities() if i != "b/photo-0.jpg"]
    changed = {i for i, row in rows.items() if row["js_bits"] > 0}
    assert changed == {"a/photo-1.jpg", "b/photo-2.jpg"}
    scores = [{row["image_id"]: row for row in run.scores.to_pylist()} for run in (first, second)]
    for image_id, row in rows.items():
        p, q = (np.exp(run.density(image_id), dtype=float) for run in (first, second))
        assert row["js_bits"] == pytest.approx(jensen_shannon(p, q), abs=1e-9)
        for name in STATISTICS:
            one, other = (own[image_id][name] for own in scores)
            assert row[f"{name}_change"] == pytest.approx(other - one, abs=1e-5), name
    for name in RANKED:
        before, after = (
            rankdata([-own[image_id][name] for image_id in rows], "min") for own in scores
        )
        rises = [row[f"{name}_rank_change"] for row in rows.values()]
        assert rises == (before - after).tolist()
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 4
    most = max(changed, key=lambda i: rows[i]["js_bits"])
    assert page.index(most) < page.index(*(changed - {most}))
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == found.summary
    again = gazecore.compare(second, first, tmp_path / "out")  # what it wrote it replaces
    assert again.summary["averages"]["js_bits"] == pytest.approx(
        found.summary["averages"]["js_bits"], abs=1e-12
    )
    assert found.metrics is None


def test_pairs_are_named_by_a_table(
    first: Results, photos: Path, tmp_path: Path, tiny: DeepGaze
) -> None:
    versions = tmp_path / "versions"
    versions.mkdir()
    for number in (1, 3, 5):
        (versions / f"v2-{number}.jpg").write_bytes(
            (photos / "a" / f"photo-{number}.jpg").read_bytes()
        )
    other = Results(score(versions, tmp_path / "other", tiny))
    with pytest.raises(InputError, match="no image in common, by image_id; --match FILE"):
        gazecore.compare(first, other, tmp_path / "out")
    a = [f"a/photo-{number}.jpg" for number in (5, 1, 3, 7)]
    b = [f"v2-{number}.jpg" for number in (5, 1, 3, 9)]
    pq.write_table(pa.table({"b": b, "a": a}), tmp_path / "match.parquet")
    lines = [f"{one};x;{two}" for one, two in zip(a, b, strict=True)]
    (tmp_path / "match.csv").write_text("\n".join(["a;note;b", *lines]))
    for name in ("match.csv", "match.parquet"):
        found = gazecore.compare(first, other, tmp_path / "out", match=tmp_path / name)
        pairs = [(row["image_id"], row["image_id_b"]) for row in found.images.to_pylist()]
        assert pairs == [(f"a/photo-{n}.jpg", f"v2-{n}.jpg") for n in (1, 3, 5)]
        assert set(found.images["js_bits"].to_pylist()) == {0.0}
    for text, message in (
        ("a,b\nx,y\nx,z\n", "'x' 2 times"),
        ("a,b\nx,y\nz,y\n", "'y' 2 times"),
        ("a,c\nx,y\n", "no single column b"),
        ("a,b\nx,y\n", "no image in common, by "),
    ):
        (tmp_path / "match.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            gazecore.compare(first, other, tmp_path / "out", match=tmp_path / "match.csv")


@pytest.mark.filterwarnings("ignore")
def test_fixations_judge_both_alike(tmp_path: Path, tiny: DeepGaze) -> None:
    """The difference is that of two evaluations, and its interval that of pairs."""
    (tmp_path / "photos").mkdir()
    corpus = make_corpus(tmp_path / "photos")
    a = Results(score(tmp_path / "photos", tmp_path / "a", tiny))
    rng = np.random.default_rng(0)
    others = {
        image_id: normalise(rng.normal(size=(24, 24))).astype(np.float32)
        for image_id in corpus.image_ids
    }
    b = made_up_like(tmp_path / "b", a, others)
    metrics = ("information_gain", "auc", "cc")
    found = gazecore.compare(a, b, tmp_path / "out", corpus=corpus, metrics=metrics, sigma=4)
    single = [gazecore.evaluate(run, corpus, metrics=metrics, sigma=4) for run in (a, b)]
    assert found.summary["judged"] == single[0].summary["images"] > 2
    assert found.summary["not_judged"] == {"images without fixations": 1}
    for metric in metrics:
        means = [one.summary["metrics"][metric]["model"] for one in single]
        own = found.summary["metrics"][metric]
        assert own["a"] == pytest.approx(means[0])
        assert own["b"] == pytest.approx(means[1])
        assert own["difference"]["mean"] == pytest.approx(means[1]["mean"] - means[0]["mean"])
    table = found.metrics
    assert table is not None
    gain = table["information_gain_difference"].to_numpy()
    drawn = np.random.default_rng(1).choice(gain, (4000, len(gain))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    interval = found.summary["metrics"]["information_gain"]["difference"]
    assert (interval["low"], interval["high"]) == pytest.approx((low, high), abs=0.1 * (high - low))
    assert "Judged by the fixations" in (tmp_path / "out" / "report.html").read_text()
    same = gazecore.compare(a, a, tmp_path / "out", corpus=corpus, metrics=metrics, sigma=4)
    for own in same.summary["metrics"].values():
        assert {*own["difference"].values()} == {0.0}
    # Without a corpus, nothing of the one before is left.
    assert gazecore.compare(a, a, tmp_path / "out").metrics is None
    assert not (tmp_path / "out" / "metrics.parquet").exists()
    with pytest.raises(InputError, match="--match means others"):
        gazecore.compare(a, b, tmp_path / "out", corpus=corpus, match=tmp_path / "x.csv")


def made_up_like(folder: Path, run: Results, densities: dict[str, np.ndarray]) -> Results:
    """A run of the same images with other densities."""
    made = made_up(folder, densities)
    sizes = {row["image_id"]: row for row in run.scores.to_pylist()}
    for part in sorted((folder / "scores").iterdir()):
        for kind in ("scores", "densities"):
            path = folder / kind / part.name
            rows = pq.read_table(path).to_pylist()
            schema = pq.read_schema(path)
            for row in rows:
                own = sizes[row["image_id"]]
                row |= {"height": own["height"], "width": own["width"]}
            pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return made


def test_the_page_escapes_names_and_shows_so_many(tmp_path: Path) -> None:
    names = [f"<script>{number}</script>" for number in range(MOST + 3)]
    a, b = (
        made_up(tmp_path / name, {n: at(0.2 + 0.05 * i, 0.5) for i, n in enumerate(names)})
        for name in ("a", "<b>")
    )
    other = made_up(tmp_path / "<i>", {n: at(0.8 - 0.02 * i, 0.4) for i, n in enumerate(names)})
    gazecore.compare(a, other, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>" not in page
    assert "<i>" not in page
    assert page.count('<ul class="tiles pairs"') == MOST
    alone = "The image cannot be read: the density alone"
    assert page.count(alone + "</span>") == 2 * MOST  # there are no such files
    assert to_size(at(0.5, 0.5), 48, 72).shape == (48, 72)
    assert gazecore.compare(a, b, tmp_path / "out").summary["averages"]["js_bits"]["most"] == 0


def test_folders_of_others_are_left_alone(first: Results, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lies in"):
        gazecore.compare(first, first, tmp_path / "first" / "compared")
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, content in (("notes.txt", "mine"), ("summary.json", '{"gazecore_version": "1"}')):
        (mine / name).write_text(content)
        with pytest.raises(InputError, match="which is of no comparison"):
            gazecore.compare(first, first, mine)
        assert (mine / name).read_text() == content
    # One that was killed before its summary goes on.
    gazecore.compare(first, first, tmp_path / "out")
    (tmp_path / "out" / "summary.json").unlink()
    gazecore.compare(first, first, tmp_path / "out")
    assert (tmp_path / "out" / "summary.json").exists()


def test_a_damaged_run_says_where(first: Results, tmp_path: Path) -> None:
    path = tmp_path / "first" / "densities" / "shard-000001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(InputError, match=r"shard-000001\.parquet lacks the density of "):
        gazecore.compare(first, first, tmp_path / "out")
    assert not (tmp_path / "out" / "summary.json").exists()
