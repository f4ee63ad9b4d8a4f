"""Evaluations: what is judged, by what, and what is left."""

import html
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import logsumexp

from gazecore.corpus.schema import FIXATIONS, IMAGES, Corpus, load_corpus
from gazecore.density.codec import encode
from gazecore.density.resample import to_size
from gazecore.errors import CorpusError, InputError
from gazecore.evaluation.densities import Densities
from gazecore.evaluation.outputs import evaluate_densities, write_evaluation
from gazecore.evaluation.selection import select_images
from gazecore.evaluation.settings import PREDICTORS, EvaluationConfig
from gazecore.images.formats import Limits
from gazecore.metrics.auc import auc
from gazecore.metrics.baseline import LeaveOneOutCenterbias
from gazecore.metrics.likelihood import information_gain, log_likelihood_bits
from gazecore.metrics.names import METRICS, PER_FIXATION
from gazecore.metrics.recording import recordings
from gazecore.model.record import TrainingRecord
from gazecore.results.run import Run, RunSettings, begin_run
from gazecore.results.write import commit_shard
from gazecore.storage import Location
from gazecore.view.layers import layers_of
from gazecore.view.report import Illustration, render_report
from tests.conftest import make_photo

SIZES = ((48, 64), (64, 48), (40, 40))
CONFIG = EvaluationConfig(sigma=4.0)


def log_density(image: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(1000 * seed + image)
    y, x = np.mgrid[:24, :32]
    log = -(((x - rng.uniform(8, 24)) / 5) ** 2 + ((y - rng.uniform(6, 18)) / 4) ** 2) / 2
    return log - logsumexp(log)


def make_corpus(folder: Path, viewers: int = 4) -> Corpus:
    """Six images, the last without fixations; people look where `log_density` says."""
    rng, images, rows = np.random.default_rng(3), [], []
    for i in range(6):
        height, width = SIZES[i % 3]
        path = folder / f"photo <{i}>.png"
        make_photo(i, width, height).save(path)
        images.append({"image_id": path.name, "uri": str(path), "height": height, "width": width})
        density = np.exp(to_size(log_density(i), height, width)).ravel().astype(np.float64)
        for viewer in range(viewers if i < 5 else 0):
            pixels = rng.choice(density.size, 5, p=density / density.sum())
            rows += [
                {
                    "image_id": path.name, "subject": f"viewer-{viewer}", "index": n,
                    "x": float(pixel % width) + 0.5, "y": float(pixel // width) + 0.5,
                    "t": None, "duration": None,
                }
                for n, pixel in enumerate(pixels)
            ]  # fmt: skip
    return Corpus(pa.Table.from_pylist(images, IMAGES), pa.Table.from_pylist(rows, FIXATIONS))


def make_run(folder: Path, corpus: Corpus, images: list[int], seed: int = 0) -> Run:
    """A run that holds densities of these images, in two shards, the later images first."""
    settings = RunSettings("images", "a" * 64, "1024", 2, 1, Limits())
    run = begin_run(Location(str(folder)), settings)
    rows = corpus.images.to_pylist()
    for shard, part in enumerate((images[2:], images[:2])):
        densities = []
        for i in part:
            values, offset = encode(log_density(i, seed), 1)
            densities.append(
                {
                    "image_id": rows[i]["image_id"], "height": rows[i]["height"],
                    "width": rows[i]["width"], "grid_height": 24, "grid_width": 32,
                    "log_density": values.ravel(), "log_offset": offset,
                }
            )  # fmt: skip
        scores = [
            {"image_id": rows[i]["image_id"], "uri": rows[i]["uri"], "status": "ok"} for i in part
        ]
        commit_shard(run, shard, scores, densities)
    return run


def test_every_value_is_the_metric_of_that_image(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    run = make_run(tmp_path / "run", corpus, [0, 1, 2, 3, 4])
    chosen, left_out = select_images(corpus, None, None, None)
    assert left_out == {"images without fixations": 1}
    densities = Densities(corpus, chosen, run.location.uri, "centerbias")
    calls: list[None] = []
    found = evaluate_densities(corpus, densities, CONFIG, {}, lambda: calls.append(None))
    assert len(calls) == 5
    assert found.images["image_id"].to_pylist() == corpus.image_ids[:5]
    assert found.images["fixations"].to_pylist() == [20] * 5
    assert found.images["viewers"].to_pylist() == [4] * 5
    assert found.fixations.num_rows == 100
    prior = LeaveOneOutCenterbias(recordings(corpus))
    points = corpus.points()
    for i, row in enumerate(found.images.to_pylist()):
        size = SIZES[i % 3]
        density = to_size(densities.of_model(row["image_id"]), *size)
        baseline = prior.log_density(row["image_id"], *size)
        at = points[row["image_id"]]
        gains = information_gain(density, baseline, at)
        assert row["information_gain_model"] == pytest.approx(gains.mean(), rel=1e-12)
        assert row["auc_model"] == pytest.approx(auc(density, at).mean(), rel=1e-12)
        assert row["log_likelihood_centerbias"] == pytest.approx(
            log_likelihood_bits(baseline, at).mean(), rel=1e-12
        )
        assert row["information_gain_centerbias"] == 0
        own = found.fixations.filter(pa.compute.field("image_id") == row["image_id"])
        np.testing.assert_array_equal(own["x"].to_numpy(), at[:, 0])
        np.testing.assert_allclose(own["information_gain_model"].to_numpy(), gains, rtol=1e-12)
        assert own["index"].to_pylist() == list(range(5)) * 4
    assert found.summary["images"] == 5
    assert found.summary["viewers"] == 4


def test_averages_have_intervals_for_every_metric_and_predictor(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    run = make_run(tmp_path / "run", corpus, [0, 1, 2, 3, 4])
    densities = Densities(corpus, corpus.image_ids[:5], run.location.uri, "centerbias")
    found = evaluate_densities(corpus, densities, CONFIG, {"left_out": {}})
    assert list(found.summary["metrics"]) == list(METRICS)
    for metric, predictors in found.summary["metrics"].items():
        assert list(predictors) == list(PREDICTORS)
        for predictor, value in predictors.items():
            column = found.images[f"{metric}_{predictor}"].to_numpy()
            assert value["mean"] == pytest.approx(column.mean(), rel=1e-12)
            assert value["low"] <= value["mean"] <= value["high"]
    assert set(found.summary["metrics_over_fixations"]) == set(PER_FIXATION)
    single = found.fixations["nss_model"].to_numpy().mean()
    over = found.summary["metrics_over_fixations"]["nss"]["model"]["mean"]
    assert over == pytest.approx(single, rel=1e-12)
    gains, limit = (
        found.images[f"information_gain_{p}"].to_numpy().mean() for p in ("model", "gold_standard")
    )
    explained = found.summary["explained_information_gain"]
    assert explained["mean"] == pytest.approx(gains / limit, rel=1e-12)
    # People were made to look where the model says, so it explains what people share.
    assert found.summary["metrics"]["information_gain"]["model"]["low"] > 0.3


def test_information_gain_is_over_the_baseline_that_was_asked_for(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    run = make_run(tmp_path / "run", corpus, [0, 1, 2, 3, 4]).location.uri
    ids = corpus.image_ids[:5]
    uniform = evaluate_densities(corpus, Densities(corpus, ids, run, "uniform"), CONFIG, {})
    for predictor in PREDICTORS:
        np.testing.assert_allclose(
            uniform.images[f"information_gain_{predictor}"].to_numpy(),
            uniform.images[f"log_likelihood_{predictor}"].to_numpy(),
            rtol=1e-5,
        )
    itself = evaluate_densities(corpus, Densities(corpus, ids, run, run), CONFIG, {})
    assert not itself.images["information_gain_model"].to_numpy().any()
    other = make_run(tmp_path / "other", corpus, [1, 2, 4], seed=7).location.uri
    densities = Densities(corpus, ids, run, other)
    assert densities.left_out["images that the baseline lacks"] == 2
    found = evaluate_densities(corpus, densities, CONFIG, {})
    difference = uniform.images["log_likelihood_model"].take([1, 2, 4]).to_numpy()
    theirs = evaluate_densities(corpus, Densities(corpus, ids, other, "uniform"), CONFIG, {})
    difference = difference - theirs.images["log_likelihood_model"].to_numpy()
    np.testing.assert_allclose(
        found.images["information_gain_model"].to_numpy(), difference, rtol=1e-4, atol=1e-6
    )


def test_a_corpus_of_single_viewers_has_no_gold_standard(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, viewers=1)
    run = make_run(tmp_path / "run", corpus, [0, 1, 2])
    densities = Densities(corpus, corpus.image_ids[:5], run.location.uri, "centerbias")
    assert densities.left_out == {"images that are not in the run": 2}
    found = evaluate_densities(corpus, densities, CONFIG, {})
    assert found.summary["gold_standard"] is None
    assert found.summary["explained_information_gain"] is None
    assert found.summary["metrics"]["cc"]["gold_standard"] is None
    assert found.images["auc_gold_standard"].null_count == 3
    json.dumps(found.summary, allow_nan=False)


def test_some_metrics_alone(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    run = make_run(tmp_path / "run", corpus, [0, 1, 2, 3, 4])
    densities = Densities(corpus, corpus.image_ids[:5], run.location.uri, "centerbias")
    about = {
        "seen_in_training": 0, "asked": {"images": None, "limit": None},
        "corpus": {"uri": "c"}, "left_out": {}, "run": "r", "baseline": "centerbias",
        "model": {"name": "m", "fingerprint": "f", "training": None},
    }  # fmt: skip
    config = EvaluationConfig(("kldiv", "nss"), 4.0)
    found = evaluate_densities(corpus, densities, config, about)
    assert list(found.summary["metrics"]) == ["kldiv", "nss"]
    assert [c for c in found.fixations.column_names if c.endswith("_model")] == ["nss_model"]
    write_evaluation(Location(str(tmp_path / "out")), found, corpus, densities)
    page = (tmp_path / "out" / "report.html").read_text()
    worst = found.images.sort_by([("kldiv_model", "descending")])["image_id"][0].as_py()
    assert html.escape(worst) in page[page.index("Worst predicted") :].split("</li>")[0]
    assert "KLDiv" in page
    assert "Information gain<" not in page
    assert "Information gain is over" not in page
    assert "smoothed with 4 px" in page


def test_the_files_hold_what_was_found_and_the_page_escapes(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    run = make_run(tmp_path / "run", corpus, [0, 1, 2, 3, 4])
    densities = Densities(corpus, corpus.image_ids[:5], run.location.uri, "centerbias")
    about = {
        "seen_in_training": 3, "asked": {"images": None, "limit": 7},
        "corpus": {"uri": "<script>alert(1)</script>"}, "left_out": {"images <b>": 3},
        "run": "r", "baseline": "centerbias",
        "model": {
            "name": "m", "fingerprint": "f",
            "training": {
                "corpus": "MIT1003", "images": 1003, "fixations": 104171,
                "stages": [
                    {"corpus": "OSIE", "images": 600, "fixations": 84250},
                    {"corpus": "MIT1003", "images": 1003, "fixations": 104171},
                ],
            },
        },
    }  # fmt: skip
    found = evaluate_densities(corpus, densities, CONFIG, about)
    Path(corpus.images["uri"][1].as_py()).unlink()  # gone since it was scored
    out = tmp_path / "out"
    write_evaluation(Location(str(out)), found, corpus, densities)
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(found.summary))
    assert pq.read_table(out / "images.parquet").equals(found.images)
    assert pq.read_table(out / "fixations.parquet").num_rows == 100
    page = (out / "report.html").read_text()
    assert "<script>" not in page
    assert "images &lt;b&gt;" in page
    assert "photo &lt;0&gt;.png" in page
    stages = "pretrained on OSIE (600 images, 84,250 fixations), then trained on MIT1003 (1,003"
    assert stages in page
    assert "4 px (--sigma). That is to be one degree of visual angle" in page
    assert "was trained on 3 of these images" in page
    assert "only the first 7 images" in page
    assert page.count("data:image/jpeg;base64,") == 4  # of the five, but the one that is gone
    assert "no ceiling" in page
    assert page.count("data:image/webp;base64,") == 5
    assert "The image cannot be read: the density alone" in page
    assert page.count('<svg class="chart"') == 1
    assert page.count('<rect class="bar series-0"') < 5  # fewer bins than images


def test_a_page_without_examples() -> None:
    summary = {
        "seen_in_training": 0, "asked": {"images": None, "limit": None},
        "corpus": {"uri": "c"}, "left_out": {}, "run": "r", "baseline": "uniform",
        "model": {"name": "m", "fingerprint": "f", "training": None}, "images": 1, "viewers": 1,
        "fixations": 2, "metrics": {}, "explained_information_gain": None,
        "settings": {"sigma": 35.0}, "gazecore_version": "1", "gold_standard_images": 0,
    }  # fmt: skip
    layers = layers_of(np.zeros((4, 6)), 40, 60, None, np.array([[3.0, 4.0]]))
    page = render_report(summary, {}, [], [Illustration("a.png", "nothing", layers)])
    assert "The image cannot be read: the density alone" in page
    assert "What the model was trained on is not known" in page
    assert "there is no gold standard" in page
    assert "Best predicted" not in page


def test_which_images_are_judged(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    ids = corpus.image_ids
    assert select_images(corpus, None, 2, None) == (
        ids[:2],
        {"images without fixations": 1, "images beyond --limit": 3},
    )
    assert select_images(corpus, "held-out", None, [ids[3], ids[1]])[0] == [ids[1], ids[3]]
    listed = tmp_path / "list.txt"
    listed.write_text(f"{ids[4]}\n\n{ids[5]}\n")
    assert select_images(corpus, str(listed), None, None) == (
        [ids[4]],
        {"images that --images does not name": 4, "images without fixations": 1},
    )
    listed.write_text("other.png\n")
    for images, limit, message in (
        (str(listed), None, "such as other.png"),
        (str(tmp_path / "none.txt"), None, "cannot read the list"),
        ("held-out", None, "was not trained on this corpus"),
        (None, 0, "--limit"),
    ):
        with pytest.raises(InputError, match=message):
            select_images(corpus, images, limit, None)
    with pytest.raises(InputError, match="no image with fixations"):
        select_images(corpus, "held-out", None, [ids[5]])


def test_images_that_the_model_was_trained_on_are_known(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    ids = corpus.image_ids
    own = TrainingRecord(corpora_sha256=[corpus.digest], held_out_images=[ids[1], ids[5]])
    other = TrainingRecord(corpora_sha256=["another"], held_out_images=[ids[0]])
    assert own.seen(corpus.digest, ids[:3]) == [ids[0], ids[2]]
    assert other.seen(corpus.digest, ids[:3]) == []
    assert TrainingRecord().seen(corpus.digest, ids[:3]) == []
    # The stages that a model went through count, too.
    for training in (replace(other, started_from=own), replace(own, started_from=other)):
        assert training.seen(corpus.digest, ids[:3]) == [ids[0], ids[2]]
        assert training.held_out(corpus.digest, ids) == sorted([ids[1], ids[5]])
    again = replace(own, held_out_images=[ids[1]], started_from=own)
    assert again.held_out(corpus.digest, ids) == [ids[1]]
    assert again.seen(corpus.digest, [ids[5]]) == [ids[5]]
    assert other.held_out(corpus.digest, ids) is None


def test_what_cannot_be_judged_is_said(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    ids = corpus.image_ids[:5]
    run = make_run(tmp_path / "run", corpus, [3, 4])
    with pytest.raises(InputError, match=r"2 images that are not in the run; .* like 'photo <0>"):
        Densities(corpus, ids[:2], run.location.uri, "centerbias")
    with pytest.raises(InputError, match="not a run directory"):
        Densities(corpus, ids, str(tmp_path), "centerbias")
    with pytest.raises(InputError, match="a baseline is centerbias, uniform or a run"):
        Densities(corpus, ids, run.location.uri, "centrebias")
    other = make_run(tmp_path / "other", corpus, [0])
    with pytest.raises(InputError, match="2 images that the baseline lacks"):
        Densities(corpus, ids, run.location.uri, other.location.uri)
    larger = corpus.images.to_pylist()
    larger[3]["width"] += 1
    changed = Corpus(pa.Table.from_pylist(larger, IMAGES), corpus.fixations)
    left = Densities(changed, ids, run.location.uri, "centerbias")
    assert left.images == [ids[4]]
    assert left.left_out["images of another size in the run"] == 1
    for wrong in ({"sigma": 0.0}, {"sigma": float("nan")}, {"metrics": ()}):
        with pytest.raises(InputError, match="must"):
            EvaluationConfig(**wrong)


def test_images_that_failed_are_told_from_images_that_were_not_scored(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    ids = corpus.image_ids
    run = make_run(tmp_path / "run", corpus, [0, 1])
    row = {"image_id": ids[2], "uri": "u", "status": "failed", "error": "decode_error"}
    commit_shard(run, 7, [row], [])
    found = Densities(corpus, ids[:5], run.location.uri, "centerbias")
    assert found.left_out == {
        "images that could not be scored": 1,
        "images that are not in the run": 2,
    }


def test_odd_corpora_are_judged(tmp_path: Path) -> None:
    """One image alone; every pixel fixated: some metrics have no value, and nothing breaks."""
    corpus = make_corpus(tmp_path)
    run = make_run(tmp_path / "run", corpus, [0, 1, 2]).location.uri
    one = corpus.image_ids[0]
    alone = Corpus(
        corpus.images.slice(0, 1),
        corpus.fixations.filter(pa.compute.field("image_id") == one),
    )
    found = evaluate_densities(alone, Densities(alone, [one], run, "centerbias"), CONFIG, {})
    assert found.summary["metrics"]["sauc"]["model"] is None
    assert found.summary["metrics"]["auc"]["model"]["mean"] > 0.5
    json.dumps(found.summary, allow_nan=False)

    small = [{"image_id": "s", "uri": "s", "height": 1, "width": 2}]
    looks = [
        {"image_id": "s", "subject": who, "index": 0, "x": x, "y": 0.5, "t": None, "duration": None}
        for who, x in (("a", 0.5), ("a", 1.5), ("b", 0.5), ("b", 1.5))
    ]
    tiny = Corpus(pa.Table.from_pylist(small, IMAGES), pa.Table.from_pylist(looks, FIXATIONS))
    settings = RunSettings("images", "a" * 64, "1024", 2, 1, Limits())
    flat = begin_run(Location(str(tmp_path / "flat")), settings)
    density = {
        "image_id": "s", "height": 1, "width": 2, "grid_height": 1, "grid_width": 1,
        "log_density": [0], "log_offset": 0.0,
    }  # fmt: skip
    commit_shard(flat, 0, [{"image_id": "s", "uri": "s", "status": "ok"}], [density])
    densities = Densities(tiny, ["s"], flat.location.uri, "centerbias")
    found = evaluate_densities(tiny, densities, CONFIG, {})
    assert found.summary["metrics"]["auc_judd"]["model"] is None
    assert found.summary["metrics"]["auc"]["model"]["mean"] == 0.5
    json.dumps(found.summary, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": -1.0}, r"row 3 .* \[-1.0, .*\], outside 'photo <0>.png' of 64x48 px"),
        ({"y": 48.0}, "outside"),
        ({"x": float("nan")}, "outside"),
        ({"image_id": "other"}, "names 'other', which images.parquet lacks"),
    ],
)
def test_a_corpus_with_impossible_fixations_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    corpus = make_corpus(tmp_path)
    rows = corpus.fixations.to_pylist()
    rows[3].update(change)
    Corpus(corpus.images, pa.Table.from_pylist(rows, FIXATIONS)).save(Location(str(tmp_path / "c")))
    with pytest.raises(CorpusError, match=message):
        load_corpus(str(tmp_path / "c"))


def test_a_corpus_with_two_images_of_one_id_is_refused(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    twice = pa.concat_tables([corpus.images, corpus.images.slice(2, 1)])
    Corpus(twice, corpus.fixations).save(Location(str(tmp_path / "c")))
    with pytest.raises(CorpusError, match=r"'photo <2>.png' twice"):
        load_corpus(str(tmp_path / "c"))
