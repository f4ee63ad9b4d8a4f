"""Passes over a run's tables on a cluster: the same tables as here."""

import importlib
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster import tasks as on_ray
from gazecore.crops.measure import crop_run
from gazecore.errors import InputError, RunFailed
from gazecore.model.deepgaze import DeepGaze
from gazecore.regions.files import open_regions
from gazecore.regions.measure import measure_run
from gazecore.results import compact as compaction
from gazecore.results import stream
from gazecore.results.compact import compact
from gazecore.results.reader import Results
from gazecore.results.run import Run
from gazecore.results.verify import problems
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.scoring import make_run, score_run

pytestmark = pytest.mark.usefixtures("ray_cluster")

each = on_ray._each


@pytest.fixture
def run(tmp_path: Path, tiny: DeepGaze, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Eleven images in shards of two, of which one failed, and one shard is not done."""
    monkeypatch.setattr(stream, "_TASK", 4)
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(10):
        make_photo(seed, 60 + 4 * seed, 64).save(photos / f"{seed:02d}.png")
    (photos / "broken.png").write_bytes(b"no picture")
    run = make_run(tmp_path / "run", photos, shard_size=2)
    score_run(run, tiny)
    for folder in (run.scores, run.densities):
        (Path(folder.path) / "shard-000001.parquet").unlink()
    return run


def test_regions_and_crops_are_those_that_this_process_finds(run: Run, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.csv"
    rows = [f"{i:02d}.png,r{j},{3 * j},{2 * j},{20 + i},30" for i in range(10) for j in range(3)]
    boxes.write_text("\n".join(["image_id,name,x,y,width,height", *rows]))
    regions = open_regions(Location(str(boxes)))
    found = []
    for name, tasks in (("here", None), ("there", each)):
        out = Location(str(tmp_path / f"regions-{name}.parquet"))
        assert measure_run(run, regions, out, tasks=tasks).regions == 24
        pieces = Location(str(tmp_path / f"pieces-{name}"))
        table = Location(str(tmp_path / f"crops-{name}.parquet"))
        assert crop_run(run, ["1:1", "1:2"], table, files=pieces, tasks=tasks).files == 16
        found.append((pq.read_table(out.path), pq.read_table(table.path)))
    assert found[0][0].equals(found[1][0])
    assert found[0][1].drop_columns("file").equals(found[1][1].drop_columns("file"))
    names = [
        sorted(p.name for p in (tmp_path / f"pieces-{n}").iterdir()) for n in ("here", "there")
    ]
    assert names[0] == names[1]
    with Image.open(tmp_path / "pieces-there" / names[1][0]) as piece:
        assert piece.width == piece.height


@pytest.mark.parametrize("table", ["scores", "densities"])
def test_a_compaction_makes_the_same_files(
    run: Run, table: compaction.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "GROUP_BYTES", 12_000)
    monkeypatch.setattr(compaction, "PART_BYTES", 12_000)
    here = {file.name: file.object.read_bytes() for file in compact(run, table).parts}
    before = Results(run).scores.sort_by("image_id")
    folder = Path(run.location.path) / "compacted"
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    made = compact(run, table, tasks=each)
    assert {file.name: file.object.read_bytes() for file in made.parts} == here
    assert len(here) > 1
    assert Results(run).scores.sort_by("image_id").equals(before)
    assert [p for p in problems(run) if "not scored" not in p] == []


def test_answers_come_in_the_order_of_the_items_and_few_items_are_taken_ahead() -> None:
    taken = []

    def items() -> object:
        for number in range(60):
            taken.append(number)
            yield number

    answers = each(lambda number: number**2, items())
    assert next(answers) == 0
    assert len(taken) < 60
    assert list(answers) == [number**2 for number in range(1, 60)]


def test_a_task_whose_process_was_lost_is_begun_again(tmp_path: Path) -> None:
    def work(number: int) -> int:
        mark = tmp_path / str(number)
        if number == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    assert list(each(work, range(5))) == [0, 1, 2, 3, 4]
    assert (tmp_path / "3").exists()


def test_one_that_always_ends_its_process_is_said_in_a_line() -> None:
    def work(number: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RunFailed, match=r"^a task was lost 4 times: .*; the same command begins"):
        list(each(work, [0]))


def test_what_a_task_raises_is_raised(run: Run, tmp_path: Path) -> None:
    path = Path(run.densities.path) / "shard-000002.parquet"
    path.write_bytes(path.read_bytes()[:-9] + bytes(9))
    out = Location(str(tmp_path / "crops.parquet"))
    with pytest.raises(InputError, match=r"shard-000002\.parquet"):
        crop_run(run, ["1:1"], out, tasks=each)
    assert not out.exists()


HALFWAY = """
import os, time
from pathlib import Path
import halfway.part
here = Path(__file__).parent
(here / f"{os.getpid()}.begun").touch()
try:
    while not (here / "go on").exists():
        time.sleep(0.1)
except BaseException:
    (here / f"{os.getpid()}.begun").rename(here / f"{os.getpid()}.interrupted")
    raise
PART = halfway.part
"""


def test_what_is_given_up_in_the_middle_of_an_import_is_met_by_no_later_task(
    tmp_path: Path,
) -> None:
    package = tmp_path / "halfway"
    package.mkdir()
    (package / "__init__.py").write_text(HALFWAY)
    (package / "part.py").touch()

    def work(number: int) -> str:
        while number == 0:
            if list(package.glob("*.begun")):
                raise InputError("the first one fails")
            time.sleep(0.1)
        sys.path.insert(0, str(tmp_path))
        return str(importlib.import_module("halfway").PART.__name__)

    with pytest.raises(InputError, match="the first one fails"):
        list(each(work, range(3)))
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(int(mark.stem)) for mark in package.glob("*.begun")):
        assert time.monotonic() < deadline, "what was given up goes on"
        time.sleep(0.1)
    (package / "go on").touch()
    assert list(each(work, range(1, 7))) == ["halfway.part"] * 6
