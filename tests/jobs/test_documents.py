"""The commands of README.md and docs/, run as they stand, in the order in which they stand."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster.layout import WorkersConfig
from gazecore.model.bundle import read_bundle
from tests.conftest import make_photo
from tests.containers import jpegs, write_container, write_folder, write_parquet
from tests.gazecore.test_corpus import write_osie
from tests.gazecore.test_corpus_bids import FILES
from tests.gazecore.test_corpus_bids import write as write_bids
from tests.gazecore.test_corpus_cat2000 import save_image, save_map
from tests.gazecore.test_corpus_eyelink import HEAD, fixation, recording
from tests.gazecore.test_corpus_eyelink import write as write_asc
from tests.gazecore.test_corpus_mit1003 import THREE, write_mit1003
from tests.gazecore.test_corpus_salicon import worker, write_mat
from tests.jobs.conftest import ROOT, run_here
from tests.test_project import commands_in

IMAGES = 12

SEEN = fixation("R", 2100, 200, "45.0", "35.0")

NOT_RUN = {
    r"--gpus-per-actor 1": "needs a GPU",
    r"--images held-out": "needs OSIE itself, which the default model's training names",
}
"""What a machine like this cannot do. Lines of other programs (ray, aws, make, ...) are not run."""


def osie(folder: Path, first: int) -> None:
    """A corpus in OSIE's layout, its images unlike those of another `first`."""
    rng = np.random.default_rng(first)
    viewers = [
        [(rng.uniform(0, 80, 6).tolist(), rng.uniform(0, 60, 6).tolist(), [200.0] * 6)] * 2
        for _ in range(IMAGES)
    ]
    folder.mkdir(parents=True)
    write_osie(folder, {f"{first + i}.jpg": v for i, v in enumerate(viewers)})
    for number in range(IMAGES):
        make_photo(first + number, 80, 60).save(folder / "stimuli" / f"{first + number}.jpg")


def photos(folder: Path) -> None:
    """The images of the corpus, and one that fails."""
    shutil.copytree("path/to/osie/stimuli", folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")


def command(*arguments: str) -> None:
    done = run_here(Path.cwd(), *arguments)
    assert done.returncode == 0, f"{shlex.join(arguments)}: {done.stderr}"


def readme() -> None:
    osie(Path("path/to/osie"), 1001)
    photos(Path("photos"))
    for name in ("beach.jpg", "street.png"):
        make_photo(7).save(name)
    names = sorted(os.listdir("photos"))
    pq.write_table(
        pa.table({"uri": [f"photos/{n}" for n in names], "image_id": names}), "list.parquet"
    )
    Path("boxes.csv").write_text(f"image_id,x,y,width,height\n{names[0]},1,1,30,20\n")


def corpora() -> None:
    osie(Path("path/to/osie"), 1001)
    Path("path/to/mit1003").mkdir()
    write_mit1003(Path("path/to/mit1003"), {"i": {"a": THREE, "b": THREE}})
    for split in ("trainSet", "testSet"):
        save_image(Path(f"path/to/cat2000/{split}/Stimuli/Art/001.jpg"))
    save_map(Path("path/to/cat2000/trainSet/FIXATIONLOCS/Art/001.mat"), [(7, 0), (960, 540)])
    salicon = Path("path/to/salicon")
    for split in ("val", "train"):
        (salicon / "images" / split).mkdir(parents=True)
        make_photo(1, 640, 480).save(salicon / "images" / split / "COCO_train2014_000000000001.jpg")
        write_mat(
            salicon / "fixations" / split / "COCO_train2014_000000000001.mat",
            [worker([[1, 1], [2, 2]])],
        )
    (salicon / "fixations_train2014.json").write_text(
        '{"images": [{"id": 1, "file_name": "COCO_train2014_000000000001.jpg", "height": 480, '
        '"width": 640}], "annotations": [{"image_id": 1, "worker_id": 1, "fixations": [[1, 1]]}]}'
    )
    command("ingest", "osie", "path/to/osie", "--out", "other")
    for name in ("MIT1003", "CAT2000_test"):
        command("export", "other", "--format", "pysaliency", "--out", f"path/to/{name}")
    for name, folder in (("freeview", "."), ("search", "TP")):
        (Path("path/to") / name / folder).mkdir(parents=True)
        make_photo(1, 168, 105).save(f"path/to/{name}/1.jpg")
        seen = {"name": "1.jpg", "subject": 1, "split": "train", "task": "clock"}
        scanpath = seen | {"X": [840, 20.5], "Y": [525, 30.5], "T": [200, 200]}
        Path(f"path/to/{name}/{folder}/fixations.json").write_text(json.dumps([scanpath]))
    Path("path/to/asc").mkdir()
    for name in ("s01", "s02"):
        shown = "MSG\t2000 PICTURE 1001.jpg\nMSG\t2000 !V IMGLOAD CENTER ../1001.jpg 40 30\n"
        write_asc(Path("path/to/asc"), HEAD + recording(2000, 3000, shown + SEEN), f"{name}.asc")
    write_bids(Path("path/to/dataset"), FILES)
    Path("path/to/dataset/stimuli/images").mkdir(parents=True)
    for name in ("a.png", "images/b.png"):
        make_photo(1, 160, 120).save(f"path/to/dataset/stimuli/{name}")
    make_photo(1, 80, 60).save("a.png")
    Path("fixations.csv").write_text("image,subject,x,y\na.png,v,5,5\n")
    pq.write_table(
        pa.table(
            {"stimulus": ["a.png"], "viewer": ["v"], "fx": [5.0], "fy": [5.0], "seconds": [0.3]}
        ),
        "gaze.parquet",
    )
    tables = {
        "export.tsv": "image\tsubject\tx\ty\tstart\tlength\na.png\tv\t960\t540\t100\t250\n",
        "psychopy.csv": "image,subject,x,y\na.png,v,-10,5\n",
        "shares.csv": "image,subject,x,y\na.png,v,0.5,0.25\na.png,v,-1,-1\n",
    }
    for name, text in tables.items():
        Path(name).write_text(text)


def training() -> None:
    osie(Path("path/to/osie"), 1001)
    osie(Path("path/to/mit"), 2001)
    command("ingest", "osie", "path/to/mit", "--out", "corpora/mit1003")
    command("features", "corpora/mit1003", "--out", "caches/mit1003")


def model_card() -> None:
    osie(Path("path/to/osie"), 1001)
    osie(Path("path/to/mit1003"), 2001)
    osie(Path("path/to/eyecrowd"), 3001)
    # What a benchmark leaves for the results page.
    command("score", "path/to/mit1003/stimuli", "--model", "open", "--out", "mit1003-open")


def metrics() -> None:
    osie(Path("path/to/osie"), 1001)
    command("ingest", "osie", "path/to/osie", "--out", "corpora/mit1003")
    Path("mine.safetensors").write_bytes(read_bundle("paper"))
    command("score", "path/to/osie/stimuli", "--out", "mit1003-run")
    shutil.copytree("mit1003-run", "other-run")


def results_format() -> None:
    osie(Path("path/to/osie"), 1001)
    photos(Path("photos"))
    command("score", "photos", "--out", "photos-run")
    shutil.copytree("photos-run", "run")
    Path("labels.csv").write_text("image_id,label\n1001.jpg,street\n")
    Path("repaired.txt").write_text("1001.jpg\n")
    save_image(Path("path/to/cat2000/testSet/Stimuli/Art/001.jpg"))


def inputs() -> None:
    import boto3

    images = jpegs(6)
    for name in ("train.tar", "train.zip", "train.tar.gz"):
        write_container(Path(name), images)
        boto3.client("s3").upload_file(name, "bucket", f"shards/{name}")
    write_parquet(Path("train.parquet"), images, hf=True)
    write_folder(
        Path("phone"), {f"{folder}/1.jpg": images["a/0001.jpg"] for folder in ("a", "raw")}
    )
    Path("links.csv").write_text('\ufeffkey;note;link\r\nk;"a\r\nb";phone/a/1.jpg\r\n')


def regions() -> None:
    osie(Path("path/to/osie"), 1001)
    photos(Path("photos"))
    command("ingest", "osie", "path/to/osie", "--out", "corpus")
    command("score", "path/to/osie/stimuli", "--out", "corpus-run")
    for name in ("boxes.csv", "corpus-boxes.csv"):
        Path(name).write_text("image_id,x,y,width,height,name\n1001.jpg,10,10,30,20,sign\n")
    Path("instances.json").write_text(
        '{"images": [{"id": 1, "file_name": "1001.jpg", "height": 60, "width": 80}], "annotations":'
        ' [{"id": 3, "image_id": 1, "bbox": [1, 2, 30, 40]}]}'
    )
    Path("masks").mkdir()
    Image.fromarray(np.eye(60, 80, dtype=np.uint8)).save("masks/1002.png")


def compare() -> None:
    osie(Path("path/to/osie"), 1001)
    photos(Path("photos"))
    command("ingest", "osie", "path/to/osie", "--out", "corpus")
    command("score", "path/to/osie/stimuli", "--out", "corpus-run")
    command("score", "path/to/osie/stimuli", "--model", "paper", "--out", "corpus-paper-run")
    shutil.copytree("corpus-run", "old-run")
    shutil.copytree("corpus-run", "new-run")
    Path("pages.csv").write_text("a,b\n1001.jpg,1002.jpg\n1003.jpg,1003.jpg\n")


def maps() -> None:
    osie(Path("path/to/osie"), 1001)
    command("ingest", "osie", "path/to/osie", "--out", "corpora/osie")
    names = [path.stem for path in Path("path/to/osie/stimuli").iterdir()]
    y, x = np.mgrid[:60, :80]
    theirs = np.exp(-(((x - 40) / 20) ** 2 + ((y - 30) / 15) ** 2))
    Path("theirs").mkdir()
    for name in names:
        Image.fromarray((255 * theirs).astype(np.uint8)).save(f"theirs/{name}.png")
    np.savez("theirs.npz", **dict.fromkeys(names, theirs))


def pages() -> None:
    osie(Path("path/to/osie"), 1001)
    photos(Path("photos"))


def nothing() -> None: ...


DOCUMENTS: dict[str, tuple[Callable[[], None], list[str]]] = {
    "README": (readme, ["README.md"]),
    "corpora": (corpora, ["docs/corpora.md"]),
    "training": (training, ["docs/training.md"]),
    "maps": (maps, ["docs/maps.md"]),
    "model-card and results": (model_card, ["docs/model-card.md", "docs/results.md"]),
    "metrics": (metrics, ["docs/metrics.md"]),
    "results-format": (results_format, ["docs/results-format.md"]),
    "inputs": (inputs, ["docs/inputs.md"]),
    "regions, crops": (regions, ["docs/regions.md", "docs/crops.md"]),
    "compare": (compare, ["docs/compare.md"]),
    "pages": (pages, ["docs/pages.md"]),
    "cluster": (nothing, ["docs/cluster.md"]),
}


def test_every_document_with_commands_is_run() -> None:
    named = {name for _, names in DOCUMENTS.values() for name in names}
    documents = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    with_commands = {str(d.relative_to(ROOT)) for d in documents if commands_in(d.read_text())}
    assert with_commands == named


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_run_as_they_stand(
    document: str, s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, names = DOCUMENTS[document]
    # Members are trained in this process: each would take Ray Train seconds to start.
    options = WorkersConfig.__init__.__defaults__ or ()
    monkeypatch.setattr(WorkersConfig.__init__, "__defaults__", (0, *options[1:]))
    monkeypatch.chdir(tmp_path)
    for key, value in s3_server.items():
        monkeypatch.setenv(key, value)
    fill_bucket()
    prepare()
    ran = 0
    for name in names:
        for arguments in commands_in((ROOT / name).read_text()):
            line = shlex.join(arguments)
            if any(re.search(pattern, line) for pattern in NOT_RUN):
                continue
            done = run_here(tmp_path, *arguments[1:])
            assert done.returncode == 0, f"{name}: {line}\n{done.stdout}\n{done.stderr}"
            ran += 1
    assert ran > 1


def fill_bucket() -> None:
    """Photographs in s3://bucket/photos, a stimulus in s3://bucket/stimuli, and a finished run."""
    import boto3

    storage = boto3.client("s3")
    storage.create_bucket(Bucket="bucket")
    for number in range(3):
        make_photo(number).save("upload.jpg")
        storage.upload_file("upload.jpg", "bucket", f"photos/{number}.jpg")
    make_photo(1, 80, 60).save("upload.png")
    storage.upload_file("upload.png", "bucket", "stimuli/a.png")
    command("score", "s3://bucket/photos", "--out", "s3://bucket/runs/photos")
