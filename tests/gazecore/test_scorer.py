from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gazecore.images.fetch import StorageUnavailable
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.model.backbone import TinyBackbone
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.schema import DENSITIES, SCORES
from gazecore.scoring.scorer import Scorer, ScorerConfig


@pytest.fixture
def images(photos: Path) -> pa.Table:
    """A shard of ten photographs with a broken file between them."""
    (photos / "a" / "photo-2b.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return pa.Table.from_batches(list_images(str(photos)))


def test_rows_come_in_the_plans_order_whatever_was_done_first(
    tiny: DeepGaze, images: pa.Table
) -> None:
    seen: list[bool] = []
    scorer = Scorer(tiny, ScorerConfig(fetchers=3))
    scores, densities = scorer.score(images, on_image=seen.append)
    scorer.close()
    assert [row["image_id"] for row in scores] == images["image_id"].to_pylist()
    assert [row["status"] for row in scores].count("failed") == 1
    ok = [row["image_id"] for row in scores if row["status"] == "ok"]
    assert [row["image_id"] for row in densities] == ok
    assert sorted(seen) == [False] + [True] * 10
    # The rows fit the schemas, types and nulls included.
    assert pa.Table.from_pylist(scores, schema=SCORES).num_rows == 11
    assert pa.Table.from_pylist(densities, schema=DENSITIES).num_rows == 10


def test_images_of_several_sizes_are_grouped_and_come_back_in_order(
    tiny: DeepGaze, images: pa.Table
) -> None:
    by_four = DeepGaze(tiny.bundle, TinyBackbone(images_at_once=4))
    results = []
    for model in (tiny, by_four):
        scorer = Scorer(model, ScorerConfig())
        results.append(scorer.score(images))
        scorer.close()
    for one, other in zip(results[0][0], results[1][0], strict=True):
        assert one["image_id"] == other["image_id"]
        assert one["status"] == other["status"]
        assert one.get("peak_x") == other.get("peak_x")
        if one["status"] == "ok":
            assert one["mean_x"] == pytest.approx(other["mean_x"], rel=1e-4)


def test_shards_scored_side_by_side_equal_shards_scored_in_turn(
    tiny: DeepGaze, images: pa.Table
) -> None:
    scorer = Scorer(tiny, ScorerConfig(fetchers=2))
    halves = [images.slice(0, 5), images.slice(5)]
    in_turn = [scorer.score(half) for half in halves]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(scorer.score, halves))
    scorer.close()
    for (scores, densities), (scores_2, densities_2) in zip(in_turn, together, strict=True):
        assert scores == scores_2
        for one, other in zip(densities, densities_2, strict=True):
            assert np.array_equal(one.pop("log_density"), other.pop("log_density"))
            assert one == other


def test_images_known_to_end_the_process_are_not_touched(tiny: DeepGaze, images: pa.Table) -> None:
    uris = pa.array(["/nowhere/" + i for i in images["image_id"].to_pylist()])
    gone = images.set_column(1, "uri", uris)
    scorer = Scorer(tiny, ScorerConfig())
    scores, _ = scorer.score(gone, crashed=frozenset(["b/photo-0.jpg"]))
    scorer.close()
    errors = {row["image_id"]: row["error"] for row in scores}
    assert errors.pop("b/photo-0.jpg") == "crashed"
    assert set(errors.values()) == {"not_found"}


def test_storage_that_does_not_answer_fails_the_shard_not_its_images(
    tiny: DeepGaze, images: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    import stamina

    # Nothing listens on this port of this machine.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    rows = [row | {"uri": f"s3://bucket/{row['image_id']}"} for row in images.to_pylist()]
    unanswered = pa.Table.from_pylist(rows, schema=images.schema)
    scorer = Scorer(tiny, ScorerConfig(fetchers=2))
    forgiving = Scorer(tiny, ScorerConfig(fetchers=2, fail_unanswered=True))
    mixed = pa.concat_tables([unanswered.slice(0, 1), images.slice(1)])
    with stamina.set_testing(True, attempts=2):
        for kind, last_try in ((scorer, False), (scorer, True), (forgiving, False)):
            with pytest.raises(StorageUnavailable, match=r"s3://bucket/a/photo-1\.jpg"):
                kind.score(mixed, last_try=last_try)
        # Who asks for it: one image that stays unanswered does not keep the others back ...
        scores, _ = forgiving.score(mixed, last_try=True)
        errors = [row.get("error") for row in scores]
        assert errors[0] == "storage_error"
        assert errors.count(None) == 9
        # ... but storage that is gone does not turn a whole shard into failed rows.
        monkeypatch.setattr("gazecore.scoring.pipeline.MAX_UNANSWERED", 2)
        with pytest.raises(StorageUnavailable):
            forgiving.score(unanswered, last_try=True)
    scorer.close()
    forgiving.close()


def test_caps_and_settings_reach_the_images(tiny: DeepGaze, images: pa.Table) -> None:
    scorer = Scorer(tiny, ScorerConfig(density_factor=2, limits=Limits(max_pixels=96 * 64)))
    scores, densities = scorer.score(images)
    scorer.close()
    errors = {row["image_id"]: row.get("error") for row in scores}
    assert errors["b/photo-2.jpg"] == "too_large"  # 80 x 80
    assert errors["b/photo-0.jpg"] is None
    widths = {row["image_id"]: row["grid_width"] for row in densities}
    assert widths["b/photo-0.jpg"] == 128
