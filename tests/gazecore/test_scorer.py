from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gazecore.errors import StorageUnavailable
from gazecore.features.cache import FEATURES, OUTCOMES, CacheDirectory
from gazecore.features.extract import FeaturesStage
from gazecore.geometry import parts
from gazecore.images.decode import to_network
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.tiny import TinyBackbone
from gazecore.results.schema import DENSITIES, SCORES
from gazecore.shards.pipeline import Pipeline
from gazecore.shards.stage import ReadingConfig
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.scoring import Scorer


@pytest.fixture
def images(photos: Path) -> pa.Table:
    """A shard of ten photographs with a broken file between them."""
    (photos / "a" / "photo-2b.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return pa.Table.from_batches(list_images(str(photos)))


def test_rows_come_in_the_plans_order_whatever_was_done_first(
    tiny: DeepGaze, images: pa.Table
) -> None:
    seen: list[bool] = []
    scorer = Scorer(tiny, ReadingConfig(fetchers=3))
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
        scorer = Scorer(model, ReadingConfig())
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
    scorer = Scorer(tiny, ReadingConfig(fetchers=2))
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
    scorer = Scorer(tiny, ReadingConfig())
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
    scorer = Scorer(tiny, ReadingConfig(fetchers=2))
    forgiving = Scorer(tiny, ReadingConfig(fetchers=2, fail_unanswered=True))
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
        monkeypatch.setattr("gazecore.shards.pipeline.MAX_UNANSWERED", 2)
        with pytest.raises(StorageUnavailable):
            forgiving.score(unanswered, last_try=True)
    scorer.close()
    forgiving.close()


def test_caps_and_settings_reach_the_images(tiny: DeepGaze, images: pa.Table) -> None:
    scorer = Scorer(tiny, ReadingConfig(limits=Limits(max_pixels=96 * 64)), density_factor=2)
    scores, densities = scorer.score(images)
    scorer.close()
    errors = {row["image_id"]: row.get("error") for row in scores}
    assert errors["b/photo-2.jpg"] == "too_large"  # 80 x 80
    assert errors["b/photo-0.jpg"] is None
    widths = {row["image_id"]: row["grid_width"] for row in densities}
    assert widths["b/photo-0.jpg"] == 128


class Odd(TinyBackbone):
    """A network that takes eight at once, and cannot bear one of the images."""

    def __init__(self, odd: str, trouble: object) -> None:
        super().__init__(images_at_once=8)
        self.odd = to_network(Path(odd).read_bytes(), "1024").pixels
        self.trouble = trouble
        self.calls: list[int] = []

    def features(self, images: np.ndarray) -> list[torch.Tensor]:
        self.calls.append(len(images))
        found = super().features(images)
        mine = [np.array_equal(image, self.odd) for image in images]
        if any(mine) and isinstance(self.trouble, Exception):
            raise self.trouble
        if any(mine) and callable(self.trouble):
            self.trouble()
        elif any(mine):
            found[0][torch.tensor(mine)] = self.trouble
        return found


@pytest.fixture
def alike(tmp_path: Path) -> pa.Table:
    """A shard of ten photographs of one size."""
    for seed in range(10):
        make_photo(seed).save(tmp_path / f"{seed}.png")
    return pa.Table.from_batches(list_images(str(tmp_path)))


def scored(model: DeepGaze, backbone: TinyBackbone, images: pa.Table) -> tuple:
    scorer = Scorer(DeepGaze(model.bundle, backbone), ReadingConfig())
    scores, densities = scorer.score(images)
    scorer.close()
    return (
        pa.Table.from_pylist(scores, schema=SCORES),
        pa.Table.from_pylist(densities, schema=DENSITIES),
    )


def extracted(model: DeepGaze, backbone: TinyBackbone, images: pa.Table) -> tuple:
    stage = FeaturesStage(backbone, CacheDirectory(Location("memory://no-cache"), 1))
    outcomes, features = Pipeline(stage, ReadingConfig()).process(images)
    return (
        pa.Table.from_pylist(outcomes, schema=OUTCOMES),
        pa.Table.from_pylist(features, schema=FEATURES),
    )


@pytest.mark.parametrize("work", [scored, extracted])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_image_whose_result_is_not_finite_is_a_failed_row_and_the_others_are_as_ever(
    tiny: DeepGaze, alike: pa.Table, work, value: float
) -> None:
    backbone = Odd(alike["uri"][3].as_py(), value)
    outcomes, results = work(tiny, backbone, alike)
    expected, wanted = work(tiny, TinyBackbone(images_at_once=8), alike)
    assert outcomes["error"].to_pylist() == [None] * 3 + ["not_finite"] + [None] * 6
    assert "finite" in outcomes["error_message"][3].as_py()
    others = [0, 1, 2, *range(4, 10)]
    assert outcomes.take(others).equals(expected.take(others))
    assert results.equals(wanted.take(others))


@pytest.mark.parametrize("work", [scored, extracted])
@pytest.mark.parametrize(
    "trouble",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        lambda: torch.empty(2**57),  # what torch says of a CPU's memory
        lambda: np.empty(2**57),
    ],
)
def test_of_a_batch_that_does_not_fit_only_what_does_not_fit_alone_is_too_large(
    tiny: DeepGaze, alike: pa.Table, work, trouble: object
) -> None:
    backbone = Odd(alike["uri"][3].as_py(), trouble)
    outcomes, results = work(tiny, backbone, alike)
    assert outcomes["error"].to_pylist() == [None] * 3 + ["too_large"] + [None] * 6
    assert results["image_id"].to_pylist() == [f"{i}.png" for i in (0, 1, 2, *range(4, 10))]
    # By halves, down to the one: the rest of the batch is not computed one by one.
    assert backbone.calls == [8, 4, 2, 2, 1, 1, 4, 2]


def test_a_device_that_has_room_for_two_gives_what_batches_of_two_give(
    tiny: DeepGaze, alike: pa.Table
) -> None:
    class Small(TinyBackbone):
        def features(self, images: np.ndarray) -> list[torch.Tensor]:
            if len(images) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().features(images)

    found = scored(tiny, Small(images_at_once=8), alike)
    assert found == scored(tiny, TinyBackbone(images_at_once=2), alike)


@given(counts=st.lists(st.integers(1, 70), min_size=1), most=st.sampled_from([1, 2, 4, 8, 16]))
def test_batches_are_cut_without_padding_and_by_the_count_alone(
    counts: list[int], most: int
) -> None:
    for count in counts:
        batches = [batch.indices(count) for batch in parts(count, most)]
        assert [i for batch in batches for i in range(*batch)] == list(range(count))
        sizes = [end - start for start, end, _ in batches]
        assert all(size in (1, 2, 4, 8, 16) and size <= most for size in sizes)
        assert sizes == sorted(sizes, reverse=True)
        assert len(sizes) <= count // most + 4


def test_another_fault_of_the_network_is_not_taken_for_a_lack_of_memory(
    tiny: DeepGaze, alike: pa.Table
) -> None:
    with pytest.raises(RuntimeError, match="illegal"):
        scored(tiny, Odd(alike["uri"][3].as_py(), RuntimeError("an illegal access")), alike)


@pytest.mark.parametrize("where", ["fetch", "decode", "resize", "statistics", "encode"])
def test_memory_that_runs_out_elsewhere_fails_the_image_alone(
    tiny: DeepGaze, alike: pa.Table, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    place = {
        "fetch": "gazecore.images.fetch._read",
        "decode": "gazecore.images.decode.to_rgb",
        "resize": "gazecore.images.decode._shrunk",
        "statistics": "gazecore.density.summary._areas",
        "encode": "gazecore.density.summary.logsumexp",
    }[where]
    calls: list[None] = []

    def short(*arguments: object, **options: object) -> None:
        calls.append(None)
        np.empty(2**57)

    monkeypatch.setattr(place, short)
    scores, densities = scored(tiny, TinyBackbone(), alike.slice(0, 2))
    assert scores["error"].to_pylist() == ["too_large"] * 2
    assert all("memory" in message for message in scores["error_message"].to_pylist())
    assert densities.num_rows == 0
    assert len(calls) == 2, "it is not tried again and again"


def test_images_are_counted_by_what_became_of_them(tiny: DeepGaze, alike: pa.Table) -> None:
    told: list[bool] = []
    backbone = Odd(alike["uri"][3].as_py(), float("nan"))
    scorer = Scorer(DeepGaze(tiny.bundle, backbone), ReadingConfig())
    scorer.score(alike, on_image=told.append)
    scorer.close()
    assert sorted(told) == [False] + [True] * 9
