"""`gazecore ingest`: every kind, its summary, and how mistakes end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gazecore.corpus.schema import load_corpus
from gazecore.wording import counted
from jobs.ingest import main
from tests.conftest import make_photo
from tests.gazecore.test_corpus import TWO, write_osie
from tests.gazecore.test_corpus_bids import FILES
from tests.gazecore.test_corpus_bids import write as write_bids
from tests.gazecore.test_corpus_cat2000 import save_image
from tests.gazecore.test_corpus_eyelink import HEAD, trial
from tests.gazecore.test_corpus_eyelink import write as write_asc
from tests.gazecore.test_corpus_mit1003 import THREE, write_mit1003
from tests.gazecore.test_corpus_salicon import worker, write_mat


def osie(folder: Path) -> str:
    return str(write_osie(folder, TWO))


def mit1003(folder: Path) -> str:
    return str(write_mit1003(folder, {"i": {"a": THREE, "b": THREE}}))


def cat2000(folder: Path) -> str:
    save_image(folder / "testSet" / "Stimuli" / "Art" / "001.jpg")
    return str(folder)


def salicon(folder: Path) -> str:
    (folder / "images" / "val").mkdir(parents=True)
    make_photo(1, 640, 480).save(folder / "images" / "val" / "a.jpg")
    write_mat(folder / "fixations" / "val" / "a.mat", [worker([[1, 1], [2, 2]])])
    return str(folder)


def pysaliency(folder: Path) -> str:
    pytest.importorskip("h5py", reason="h5py is not installed")
    from tests.gazecore.test_corpus_pysaliency import make_corpus, write

    return str(write(make_corpus(folder), folder))


def table(folder: Path) -> str:
    make_photo(1, 80, 60).save(folder / "a.png")
    (folder / "t.csv").write_text("image,who,x,y\na.png,1,5,5\na.png,2,,5\na.png,2,500,5\n")
    return str(folder / "t.csv")


def eyelink(folder: Path) -> str:
    (folder / "images").mkdir()
    for name in ("a.png", "b.png"):
        make_photo(1, 160, 120).save(folder / "images" / name)
    return write_asc(folder, HEAD + trial(2000, "a.png"))


def bids(folder: Path) -> str:
    (folder / "stimuli" / "images").mkdir(parents=True)
    for name in ("a.png", "images/b.png"):
        make_photo(1, 160, 120).save(folder / "stimuli" / name)
    return write_bids(folder, FILES)


@pytest.mark.parametrize(
    ("make", "flags", "summary"),
    [
        (osie, [], ["2 images, 3 subjects, 9 fixations", "3 fixations outside the image"]),
        (
            mit1003,
            [],
            [
                "1 image, 2 subjects, 4 fixations",
                "0 fixations outside the image",
                "2 first fixations of a scanpath",
            ],
        ),
        (mit1003, ["--mit1003.keep-first"], ["1 image, 2 subjects, 6 fixations", "0 fixations"]),
        (cat2000, ["--cat2000.split", "test"], ["1 image, 0 subjects, 0 fixations"]),
        (salicon, ["--salicon.split", "val"], ["1 image, 1 subject, 2 fixations"]),
        (
            eyelink,
            ["--eyelink.eye", "left", "--eyelink.shown", "centred"],
            ["1 image, 1 subject, 2 fixations", "0 fixations outside"],
        ),
        (
            bids,
            ["--bids.task", "view", "--bids.screen", "320", "240"],
            ["2 images, 1 subject, 2 fixations", "0 fixations outside"],
        ),
        (pysaliency, [], ["3 images, 2 subjects, 4 fixations"]),
        (
            table,
            ["--table.subject", "who"],
            ["1 image, 1 subject, 1 fixation", "1 fixation outside", "1 row without x or y"],
        ),
    ],
)
def test_each_kind_becomes_a_corpus(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], str],
    flags: list[str],
    summary: list[str],
) -> None:
    (tmp_path / "in").mkdir()
    source, corpus = make(tmp_path / "in"), str(tmp_path / "corpus")
    with pytest.raises(SystemExit) as end:
        main([make.__name__, source, "--out", corpus, *flags])
    shown = capsys.readouterr()
    assert end.value.code == 0
    outside = any("outside" in line and not line.startswith("0 ") for line in summary)
    assert ("caution" in shown.err) == outside
    lines = shown.out.splitlines()
    assert lines[0] == summary[0]
    for line, expected in zip(lines[1:], summary[1:], strict=False):
        assert line.startswith(f"left out: {expected}")
    assert counted(load_corpus(corpus).fixations.num_rows, "fixations") in summary[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["osie"], "fixations.mat"),
        (["mit1003"], "ALLSTIMULI"),
        (["cat2000"], "trainSet/Stimuli"),
        (["salicon"], "images/train"),
        (["eyelink"], "no ASC files"),
        (["bids"], "no *_physioevents.tsv.gz"),
        (["table"], "nowhere"),
        (["osie", "--table.x", "fx"], "--table options mean nothing to the kind osie"),
        (["table", "--mit1003.keep-first"], "--mit1003 options mean nothing to the kind table"),
    ],
)
def test_mistakes_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    kind, *flags = arguments
    with pytest.raises(SystemExit) as end:
        main([kind, str(tmp_path / "nowhere"), "--out", str(tmp_path / "corpus"), *flags])
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert len(shown.err.splitlines()) == 1
    assert message in shown.err
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("inside", "cautioned"), [(4, False), (3, True)], ids=["a-fifth", "more-than-a-fifth"]
)
def test_fixations_outside_their_images_are_a_caution_that_names_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inside: int, cautioned: bool
) -> None:
    make_photo(1, 80, 60).save(tmp_path / "a.png")
    rows = "".join(f"a.png,v,{x},5\n" for x in [500, *range(10, 10 + inside)])
    (tmp_path / "a.csv").write_text(f"image,subject,x,y\n{rows}")
    with pytest.raises(SystemExit) as end:
        main(["table", str(tmp_path / "a.csv"), "--out", str(tmp_path / "corpus")])
    assert end.value.code == 0
    said = capsys.readouterr().err
    if not cautioned:
        assert said == ""
        return
    assert "caution: 1 of 4 fixations lie outside their images" in said
    assert "--table.screen" in said
    assert len(said.splitlines()) == 1


def test_a_caution_says_what_the_kind_can_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(SystemExit):
        main(["osie", osie(tmp_path / "in"), "--out", str(tmp_path / "corpus")])
    said = capsys.readouterr().err
    assert "3 of 12 fixations" in said
    assert "--table" not in said


def test_options_of_a_table_reach_it(tmp_path: Path) -> None:
    make_photo(1, 80, 60).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(
        "image;subject;x;y;d\na.png;v;-1;-1;9\na.png;v;0,5;0,5;250\n", "utf-16"
    )
    flags = (
        "--table.screen 320 200 --table.shown fit --table.positions shares --table.missing -1 "
        "--table.origin bottom-left --table.duration d --table.times ms --table.delimiter ; "
        "--table.decimal comma --table.encoding utf-16"
    )
    with pytest.raises(SystemExit) as end:
        main(["table", str(tmp_path / "a.txt"), "--out", str(tmp_path / "corpus"), *flags.split()])
    assert end.value.code == 0
    [row] = load_corpus(str(tmp_path / "corpus")).fixations.to_pylist()
    assert (row["x"], row["y"], row["duration"]) == (40, 30, 0.25)
