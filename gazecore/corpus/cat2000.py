"""CAT2000 (Borji and Itti 2015): binary maps of the fixations of all subjects together.

    trainSet/Stimuli/<Category>/NNN.jpg    trainSet/FIXATIONLOCS/<Category>/NNN.mat   (`fixLocs`)
    testSet/Stimuli/<Category>/NNN.jpg     images whose fixations are not public

All images are 1920x1080. The maps know neither subjects nor order: the subject is `pooled`, `index`
goes row by row, and positions are whole pixels. `Output` folders inside a category, which hold
pictures of the maps, are not read.

Sizes are checked: an image is 1920x1080 or an error. One file of the test set (`Pattern/134.jpg`)
has that size but an EXIF tag that wrongly turns it on its side; of such a file a copy without
its EXIF data, pixels untouched, is written beside the corpus, and stands in it.
"""

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image

from gazecore.corpus.collect import WITHOUT_IMAGE, Collector, image_size, left_over, read_mat
from gazecore.corpus.schema import Corpus
from gazecore.errors import CorpusError
from gazecore.storage import Location

SIZE = (1080, 1920)
"""Height and width of every image."""

SUBJECT = "pooled"


@dataclass(frozen=True)
class Cat2000Options:
    """Which half of CAT2000 is read."""

    split: Literal["train", "test"] = "train"
    """`train` has fixations, `test` only images."""


def read_cat2000(source: str, copies: str, options: Cat2000Options | None = None) -> Corpus:
    """Import the folder that holds trainSet or testSet.

    Args:
        source: the folder.
        copies: folder for copies of images whose EXIF rotation is wrong; made if there are any.
        options: which half.

    Raises:
        CorpusError: a file or field is missing or malformed; the message names it.
    """
    options = options or Cat2000Options()
    root = Location(source) / f"{options.split}Set"
    stimuli = root / "Stimuli"
    names = [
        f"{category}/{name}"
        for category in stimuli.names()
        if "." not in category
        for name in (stimuli / category).names()
        if name.endswith(".jpg")
    ]
    if not names:
        raise CorpusError(f"{stimuli.uri}: no <Category>/NNN.jpg there")
    collector = Collector()
    for name in names:
        collector.add_image(name, _upright(stimuli / name, name, copies), SIZE)
        if options.split == "train":
            x, y = _fixated(root / "FIXATIONLOCS" / name.replace(".jpg", ".mat"))
            collector.add_scanpath(name, SUBJECT, x, y)
    for category in (root / "FIXATIONLOCS").names() if options.split == "train" else []:
        own = [name.split("/")[1] for name in names if name.startswith(f"{category}/")]
        used = [name.replace(".jpg", ".mat") for name in own]
        unused = left_over(root / "FIXATIONLOCS" / category, (".mat",), used)
        collector.drop(WITHOUT_IMAGE, unused)
    return collector.corpus()


def _upright(stimulus: Location, name: str, copies: str) -> str:
    """The URI of an image of the right size: the file itself, or its copy without a wrong tag."""
    stored = image_size(stimulus, upright=False)
    if stored != SIZE:
        raise CorpusError(f"{stimulus.uri} has {stored[1]}x{stored[0]} pixels, not 1920x1080")
    if image_size(stimulus) == SIZE:
        return stimulus.uri
    copy = Location(copies) / name
    copy.publish(_without_exif(stimulus.read_bytes()))
    return copy.uri


def _without_exif(jpeg: bytes) -> bytes:
    with Image.open(BytesIO(jpeg)) as image:
        exif: bytes = image.info["exif"]
    return jpeg.replace(b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif, b"", 1)


def _fixated(location: Location) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the fixated pixels, row by row."""
    values = np.asarray(read_mat(location, "fixLocs"))
    if values.shape != SIZE or values.dtype.kind not in "biuf":
        raise CorpusError(
            f"{location.uri}: fixLocs is {values.dtype} of the shape {values.shape}, not a map of "
            "1080x1920 numbers"
        )
    # A fixation density stored under this name would otherwise become a million fixations.
    if len(np.unique(values)) > 2:
        raise CorpusError(f"{location.uri}: fixLocs is not binary")
    y, x = np.nonzero(values)
    return x.astype(float), y.astype(float)
