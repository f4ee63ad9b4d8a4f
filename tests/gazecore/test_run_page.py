"""The page of a run: what it says is what the run holds, and nothing in it is more than text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gazecore.errors import InputError
from gazecore.results.compact import compact
from gazecore.results.overview import EXTREMES, STATISTICS, Shown, overview
from gazecore.results.reader import Results
from gazecore.results.run import Run, open_run
from gazecore.results.times import NAME, add_times, read_times
from gazecore.results.verify import problems
from gazecore.shards.clock import PHASES, Times
from gazecore.storage import Location
from gazecore.view.charts import bins_for, edges_of, histogram
from gazecore.view.pages import short
from gazecore.view.run import EMBEDDED, write_report
from tests.gazecore.test_old_runs import as_written_before
from tests.pages import HOSTILE, page_run
from tests.scoring import files

NAMES = [*HOSTILE, *(f"photo-{n}.jpg" for n in range(25))]
FAILING = [HOSTILE[0], "photo-3.jpg"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return page_run(tmp_path / "run", NAMES, tmp_path / "images", FAILING)


class _Page(HTMLParser):
    """All text, and the JSON in script elements by their ids."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.data, self.tags = "", dict[str, Any](), list[tuple[str, dict[str, Any]]]()
        self._in: str | None = None
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.tags.append((tag, own))
        if tag == "script":
            self._in = own.get("id") or "code"

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._in = None

    def handle_data(self, data: str) -> None:
        if self._in is None:
            self.text += data
        elif self._in != "code":
            self.data[self._in] = json.loads(data)


def page_of(run: Run, out: Path, shown: Shown = Shown(), **options: Any) -> _Page:
    write_report(run, Location(str(out)), shown, **options)
    return _Page(out / "report.html")


def test_the_page_says_what_the_run_holds(run: Run, tmp_path: Path) -> None:
    page = page_of(run, tmp_path / "out", command="gazecore report run --out out")
    assert "holiday, scored by the model default" in page.text
    assert re.search(r"28\s*scored", page.text)
    assert re.search(r"2\s*failed", page.text)
    for text in ("decode_error", "no image: photo-3.jpg", "OSIE, then MIT1003", "f" * 64,
                 "gazecore report run --out out"):  # fmt: skip
        assert text in page.text
    data = page.data["run"]
    assert sorted(data["ids"]) == sorted(NAMES)
    rows = {row["image_id"]: row for row in Results(run).scores.to_pylist()}
    for i, name in enumerate(data["ids"]):
        row = rows[name]
        assert data["seen"][i] == (0 if name in FAILING else 2)
        assert (data["errors"][i] is None) == (name not in FAILING)
        for column, values in data["values"].items():
            if row[column] is None:
                assert values[i] is None
            else:
                assert values[i] == pytest.approx(row[column], rel=1e-4)
    pictures = page.data["pictures"]
    assert [p is None for p in pictures] == [how == 0 for how in data["seen"]]
    assert all(set(p) == {"image", "density", "contours"} for p in pictures if p)
    assert not (tmp_path / "out" / "pictures").exists()


def test_nothing_is_more_than_text(run: Run, tmp_path: Path) -> None:
    page = page_of(run, tmp_path / "out", command="gazecore '<b>'")
    for name in HOSTILE:
        assert name in page.text + "".join(page.data["run"]["ids"])
    kinds = {tag for tag, _ in page.tags}
    assert kinds.isdisjoint({"b>", "img", "iframe", "object", "base", "form"})
    scripts = [own for tag, own in page.tags if tag == "script"]
    assert [own.get("type") for own in scripts] == ["application/json"] * 2 + ["module"] * 2
    for _, own in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in own)
    [policy] = [own["content"] for _, own in page.tags
                if own.get("http-equiv") == "Content-Security-Policy"]  # fmt: skip
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_numbers_are_those_of_the_scores(run: Run) -> None:
    found = overview(run, Shown(extreme=4), bins_for)
    scores = Results(run).scores.to_pylist()
    for name in STATISTICS:
        values = [row[name] for row in scores if row[name] is not None]
        if not values:
            assert name not in found.distributions
            continue
        own = found.distributions[name]
        assert own.count == len(values) == sum(own.counts)
        assert (own.low, own.high) == (min(values), max(values))
        assert own.mean == pytest.approx(np.mean(values))
        assert own.counts == np.histogram(values, own.edges)[0].tolist()
        assert len(own.counts) <= max(9, len(values) // 2)
    for (name, highest), ids in zip(EXTREMES, found.extremes, strict=True):
        values = sorted((row[name] for row in scores if row[name] is not None), reverse=highest)
        known = {row["image_id"]: row[name] for row in scores}
        assert [known[i] for i in ids] == values[:4]
    assert found.failures == [
        ("decode_error", 2, sorted((name, f"no image: {name}") for name in FAILING))
    ]


def test_a_large_run_is_sampled_by_its_seed(run: Run) -> None:
    few = Shown(images=8, extreme=2, sample=3)
    found = overview(run, few, bins_for)
    assert found.distributions["area_50"].count == 28
    extreme = {i for ids in found.extremes for i in ids}
    assert len(extreme) <= len(found.rows) <= 8 + len(extreme)
    assert {row["image_id"] for row in found.rows} >= {*extreme, *found.sample}
    assert any(row["status"] == "failed" for row in found.rows)
    assert len(found.sample) == 3
    assert overview(run, few, bins_for).sample == found.sample
    others = [overview(run, Shown(8, 2, 3, seed), bins_for).sample for seed in range(1, 5)]
    assert any(sample != found.sample for sample in others)


def test_a_compacted_run_and_a_part_of_one_have_the_same_page(run: Run, tmp_path: Path) -> None:
    before = page_of(run, tmp_path / "out")
    for table in ("scores", "densities"):
        compact(run, table)
    after = page_of(run, tmp_path / "out")
    assert after.data == before.data
    part = page_of(page_run(tmp_path / "part", NAMES, done=1), tmp_path / "other")
    assert re.search(r"16\s*scored", part.text)
    assert re.search(r"14\s*not scored yet", part.text)
    assert len(part.data["run"]["ids"]) == 16


def test_images_that_are_gone_are_shown_by_their_density(tmp_path: Path) -> None:
    run = page_run(tmp_path / "run", NAMES)
    found = write_report(run, Location(str(tmp_path / "out")))
    assert found.unread == len(NAMES)
    page = _Page(tmp_path / "out" / "report.html")
    assert set(page.data["run"]["seen"]) == {1}
    assert all(set(p) == {"density", "contours"} for p in page.data["pictures"])


def test_no_image_is_read_where_densities_are_enough(run: Run, tmp_path: Path) -> None:
    page = page_of(run, tmp_path / "out", densities_only=True)
    assert set(page.data["run"]["seen"]) == {0, 1}


def test_where_nothing_was_scored_the_page_says_what_failed(tmp_path: Path) -> None:
    run = page_run(tmp_path / "run", NAMES[:3], failing=NAMES[:3])
    page = page_of(run, tmp_path / "out")
    assert "no image: " in page.text
    assert "Extremes" not in page.text
    with pytest.raises(InputError, match="holds nothing yet"):
        page_of(page_run(tmp_path / "none", NAMES, done=0), tmp_path / "other")


def test_a_run_of_the_version_before_has_a_page(run: Run, tmp_path: Path) -> None:
    as_written_before(tmp_path / "run")
    page = page_of(open_run(run.location), tmp_path / "out")
    assert page.data["run"]["peaks"][-1] == []
    assert page.data["run"]["values"]["n_peaks"][-1] == 1


def test_pictures_of_a_large_run_lie_beside_and_are_replaced(tmp_path: Path) -> None:
    names = [f"{n}.jpg" for n in range(EMBEDDED + 6)]
    run = page_run(tmp_path / "run", names, tmp_path / "images", names[:1])
    before = files(run)
    out = tmp_path / "out"
    page = page_of(run, out)
    assert "pictures" not in page.data
    place = {name: i for i, name in enumerate(page.data["run"]["ids"])}
    for name in names:
        there = [(out / "pictures" / f"{place[name]:06d}.{s}").exists() for s in ("jpg", "webp")]
        assert there == [name != "0.jpg"] * 2
    (out / "notes.txt").write_text("mine")
    (out / "pictures" / "mine.jpg").write_text("mine")
    page_of(run, out, Shown(images=EMBEDDED + 2))
    left = {path.name for path in (out / "pictures").iterdir()}
    assert len(left) <= 3 * (EMBEDDED + 6) + 2
    page_of(run, out, Shown(images=20, extreme=1))  # small enough to hold its pictures
    assert {path.name for path in (out / "pictures").iterdir()} == {"mine.jpg"}
    assert (out / "notes.txt").read_text() == "mine"
    assert files(run) == before


def test_files_of_others_are_left_alone(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "report.html").write_text('<meta name="generator" content="gazecore evaluation 1">')
    with pytest.raises(InputError, match="gazecore did not make it"):
        page_of(run, mine)
    (mine / "report.html").unlink()
    (mine / "pictures").mkdir()
    (mine / "pictures" / "000000.jpg").write_text("mine")
    with pytest.raises(InputError, match="gazecore did not make it"):
        page_of(run, mine)
    with pytest.raises(InputError, match="lies in the run"):
        page_of(run, tmp_path / "run" / "page")
    for images in (0, 50_001):
        with pytest.raises(InputError, match="1 to 50,000 images"):
            page_of(run, tmp_path / "out", Shown(images=images))
    assert (mine / "pictures" / "000000.jpg").read_text() == "mine"


def test_times_are_added_up_and_shown(run: Run, tmp_path: Path) -> None:
    assert read_times(run) is None
    add_times(run, Times())
    assert not (tmp_path / "run" / NAME).exists()
    once = Times(dict.fromkeys(PHASES, 2.0), 4.0, dict.fromkeys(PHASES, 4.0), 10)
    for _ in range(2):
        add_times(run, once)
    assert read_times(run) == once + once
    assert list(problems(run)) == []
    page = page_of(run, tmp_path / "out")
    assert "Where the time went" in page.text
    assert "Workers were at it for 8 s" in page.text
    (tmp_path / "run" / NAME).write_text("[]")
    assert read_times(run) is None
    assert "Where the time went" not in page_of(run, tmp_path / "out").text


@pytest.mark.parametrize("count", [1, 2, 3, 10, 30, 1000, 10**7])
def test_bins_follow_the_number_of_images(count: int) -> None:
    bins = bins_for(count)
    assert 1 <= bins <= 40
    assert count < 3 or bins < count
    assert bins_for(2 * count) >= bins


def test_a_chart_holds_every_value() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=200), np.zeros(3), np.array([5.0]), np.full(4, -1e-8)):
        edges = edges_of(values.min(), values.max(), 7)
        assert np.histogram(values, edges)[0].sum() == len(values)
        drawn = histogram({"<b>": values}, "a & b")
        assert drawn is not None
        assert "<b>" not in drawn
        assert f"{len(values):,} images" in drawn
    assert histogram({}, "nothing") is None


def test_a_fingerprint_is_cut_and_the_words_before_it_are_not() -> None:
    assert short("0123456789abcdef" * 4) == "0123456789abcdef"
    assert short(f"out of fold: {'0123456789abcdef' * 4}") == "out of fold: 0123456789abcdef"
