"""`gazecore export`: runs and corpora, what it says, and how mistakes end."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gazecore.corpus.schema import load_corpus
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.reader import Results
from gazecore.results.run import Run
from gazecore.storage import Location
from jobs.export import main
from jobs.ingest import main as ingest
from tests.gazecore import oracle
from tests.gazecore.test_corpus_pysaliency import make_corpus, rows_of
from tests.gazecore.test_export import score
from tests.jobs.conftest import Command, words


@pytest.fixture
def scored(photos: Path, tmp_path: Path, tiny: DeepGaze, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of ten photographs and a file that is none, at `run` in the working directory."""
    monkeypatch.chdir(tmp_path)
    (photos / "a" / "broken.png").write_bytes(b"\x89PNG and nothing more")
    return score(photos, tmp_path / "run", tiny)


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py", reason="h5py is not installed")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    shown = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, words(shown.out), shown.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that ends with exit code 2, having written nothing."""
    before = set(Path.cwd().rglob("*"))
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert set(Path.cwd().rglob("*")) == before
    return err


def test_a_run_as_model_and_as_maps(
    h5py: Any, scored: Run, gazecore_here: Command, tmp_path: Path
) -> None:
    made = gazecore_here("export", "run", "--format", "pysaliency", "--out", "new/model.hdf5")
    assert made.returncode == 0, made.stderr
    assert f"10 densities in {tmp_path}/new/model.hdf5" in words(made.stdout)
    assert "left out: 1 image that failed" in made.stdout
    assert made.stderr == ""  # bars are for terminals
    densities = dict(Results(scored).densities())
    with h5py.File(tmp_path / "new" / "model.hdf5") as file:
        for image_id, log_density in densities.items():
            assert np.array_equal(file[image_id][:], log_density)
    made = gazecore_here("export", "run", "--format", "png", "--out", "maps", "--map", "ranks")
    assert made.returncode == 0, made.stderr
    assert "10 densities in" in made.stdout
    for image_id, log_density in densities.items():
        with Image.open((tmp_path / "maps" / image_id).with_suffix(".png")) as picture:
            assert picture.size == log_density.shape[::-1]
            assert len(np.unique(picture)) == 256
    assert gazecore_here("verify", "run").returncode == 0


def test_a_run_as_data_sets(scored: Run, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("run", "--format", "huggingface", "--out", "set")
    code, out, err = call(capsys, *arguments)
    assert (code, err) == (0, "")
    assert "10 rows in" in out
    assert "left out: 1 image that failed" in out
    Path("photos/a/photo-1.jpg").unlink()
    code, out, err = call(capsys, *arguments)
    assert code == 1
    assert "10 rows in" in out
    assert err.startswith("a/photo-1.jpg: ")
    assert len(err.splitlines()) == 1
    assert call(capsys, *arguments, "--without-images", "--map", "ranks")[0] == 0
    code, out, err = call(capsys, "run", "--format", "fiftyone", "--out", "samples")
    assert code == 1
    assert "9 samples in" in out
    assert err.startswith("a/photo-1.jpg: ")
    rows = pq.read_table("set/data/train-00000-of-00001.parquet")
    assert rows.num_rows == 10
    assert "image" not in rows.column_names


def test_a_run_that_is_not_finished_is_exported_on_demand(
    h5py: Any, scored: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run/scores/shard-000001.parquet").unlink()
    arguments = ("run", "--format", "pysaliency", "--out", "m.hdf5")
    message = refused(capsys, *arguments)
    assert "4 of 11 images not scored yet: `gazecore score`" in message
    code, out, _ = call(capsys, *arguments, "--partial")
    assert code == 0
    assert "6 densities in" in out
    assert "left out: 1 image that failed" in out
    assert "left out: 4 images not scored yet" in out
    with h5py.File("m.hdf5") as file:
        assert sum(len(group) for group in file.values()) == 6
    for path in Path("run/scores").iterdir():
        path.unlink()
    assert "has no densities" in refused(capsys, *arguments, "--partial")


@pytest.mark.filterwarnings("ignore")  # pysaliency's own warnings are not ours to fix
def test_a_corpus_there_and_back(
    h5py: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = make_corpus(tmp_path)
    corpus.save(Location(str(tmp_path / "corpus")))
    arguments = ("--format", "pysaliency", "--out", str(tmp_path / "files"))
    code, out, err = call(capsys, str(tmp_path / "corpus"), *arguments)
    assert (code, err) == (0, "")
    assert out == f"3 images, 4 fixations in {tmp_path}/files"
    with pytest.raises(SystemExit) as end:
        ingest(["pysaliency", str(tmp_path / "files"), "--out", str(tmp_path / "again")])
    assert end.value.code == 0
    again = load_corpus(str(tmp_path / "again"))
    assert again.images.equals(corpus.images)
    assert again.fixations.equals(corpus.fixations)
    pysaliency = oracle.load()
    stimuli, fixations = (
        pysaliency.read_hdf5(str(tmp_path / "files" / f"{name}.hdf5"))
        for name in ("stimuli", "fixations")
    )
    assert [stimulus.size for stimulus in stimuli] == [(60, 80)] * 3
    found = [
        (stimuli.attributes["image_id"][n], x, y)
        for n, x, y in zip(fixations.n, fixations.x, fixations.y, strict=True)
    ]
    assert found == [(row[0], row[3], row[4]) for row in rows_of(corpus)]


def test_mistakes_end_in_one_line(
    h5py: Any, scored: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    make_corpus(tmp_path).save(Location("corpus"))
    model, png, npz = (("--format", name, "--out") for name in ("pysaliency", "png", "npz"))
    for arguments, message in (
        (("photos", *model, "x"), "neither a run"),
        (("nowhere", *png, "x"), "neither a run"),
        (("corpus", *png, "x"), "--format pysaliency"),
        (("corpus", *model, "x", "--partial"), "as a whole"),
        (("corpus", *model, "memory://x"), "not local"),
        (("run", *model, "x", "--map", "ranks"), "--map means nothing"),
        (("run", *npz, "x", "--map", "ranks"), "--map means nothing to the format npz"),
        (("run", *npz, "x", "--file", "webp"), "--file means nothing to the format npz"),
        (("run", *png, "x", "--size", "99"), "--size means nothing to the format png"),
        (("run", *model, "x", "--bare"), "--bare means nothing to the format pysaliency"),
        (("run", *png, "x", "--transparent"), "--transparent means nothing to the format png"),
        (("corpus", *npz, "x"), "--format pysaliency"),
        (("run", *npz, "x", "--without-images"), "--without-images means nothing"),
        (("run", "--format", "fiftyone", "--out", "x", "--bare"), "--bare means nothing"),
        (("run", *model, "photos"), "is a folder"),
        (("run", *model, "run/model.hdf5"), "lies in the run"),
        (("run", *png, "run"), "lies in the run"),
    ):
        assert message in refused(capsys, *arguments)
    Path("corpus/fixations.parquet").unlink()
    assert "fixations.parquet" in refused(capsys, "corpus", *model, "x")
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "gazecore[pysaliency]" in refused(capsys, "run", *model, "x")


def test_ids_that_would_leave_the_folder_are_refused(
    scored: Run, tmp_path: Path, tiny: DeepGaze, capsys: pytest.CaptureFixture[str]
) -> None:
    uris = sorted((tmp_path / "photos").rglob("*.jpg"))[:2]
    for number, ids in enumerate((["../one", "two"], ["/one", "two"], ["x/../../one", "two"])):
        rows = "".join(f"{uri},{i}\n" for uri, i in zip(uris, ids, strict=True))
        Path("list.csv").write_text(f"uri,image_id\n{rows}")
        score("list.csv", tmp_path / f"run-{number}", tiny)
        message = refused(capsys, f"run-{number}", "--format", "png", "--out", "maps")
        assert ids[0] in message


def test_a_damaged_run_leaves_no_model(
    h5py: Any, scored: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run/densities/shard-000002.parquet").unlink()
    code, _, err = call(capsys, "run", "--format", "pysaliency", "--out", "out/m.hdf5")
    assert code == 1
    assert "shard-000002" in err.splitlines()[-1]
    assert not list(Path("out").iterdir())


def test_onto_s3(
    h5py: Any, scored: Run, s3_client: Any, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    s3_client.create_bucket(Bucket="exports")
    before = set(tmp_path.rglob("*"))
    for form, out in (("pysaliency", "x/m.hdf5"), ("png", "maps"), ("pysaliency", "x/m.hdf5")):
        assert call(capsys, "run", "--format", form, "--out", f"s3://exports/{out}")[0] == 0
    assert set(tmp_path.rglob("*")) == before
    keys = [item["Key"] for item in s3_client.list_objects_v2(Bucket="exports")["Contents"]]
    assert keys[-1] == "x/m.hdf5"
    assert keys[:-1] == sorted(f"maps/{'ab'[1 - n % 2]}/photo-{n}.png" for n in range(10))
    s3_client.download_file("exports", "x/m.hdf5", "m.hdf5")
    with h5py.File("m.hdf5") as file:
        assert file["a/photo-1.jpg"].shape == (96, 64)
