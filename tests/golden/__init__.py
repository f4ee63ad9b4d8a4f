"""A run and a feature cache as they are written, and the input that they are of.

The input lies in memory, as bitmaps and with a list, so that nothing of it differs between
machines: no encoder, no time, no path.

Where a change of the format means them to be others, `pytest tests/gazecore/test_golden.py
--basetemp=NEW` leaves the new ones in NEW/test_a_run_is_what_it_was0/run, to be copied here.
"""

import io
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
from PIL import Image

from gazecore.corpus.schema import FIXATIONS, IMAGES, Corpus

GOLDEN = Path(__file__).parent

PHOTOS = "memory://golden/photos"
INPUT = "memory://golden/list.csv"

SIZES = [(96, 64), (64, 96), (80, 80), (96, 64), (16, 16), (96, 64), (40, 120)]


def make_input() -> None:
    """Seven images, one that is broken, one that is not there, and the list of them all."""
    memory = fsspec.filesystem("memory")
    lines = ["image_id,uri"]
    for number, (width, height) in enumerate(SIZES):
        y, x = np.mgrid[:height, :width]
        waves = [x * (number + 3) + 2 * y, x * y // 7, (x - y) * (number + 1)]
        image = Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))
        buffer = io.BytesIO()
        image.save(buffer, format="BMP")
        memory.pipe_file(f"{PHOTOS}/{number}.bmp", buffer.getvalue())
        lines.append(f"{number},{PHOTOS}/{number}.bmp")
    memory.pipe_file(f"{PHOTOS}/broken.bmp", b"BM and no more")
    lines[3:3] = [f"broken,{PHOTOS}/broken.bmp", f"absent,{PHOTOS}/absent.bmp"]
    memory.pipe_file(INPUT, "\n".join(lines).encode())


def make_corpus() -> Corpus:
    """The images that can be read, and the broken one, with a fixation each."""
    sizes = {f"{number}": size for number, size in enumerate(SIZES)} | {"broken": (10, 10)}
    images = [
        {"image_id": name, "uri": f"{PHOTOS}/{name}.bmp", "height": height, "width": width}
        for name, (width, height) in sizes.items()
    ]
    fixations = [
        {"image_id": name, "subject": "a", "index": 0, "x": 4.5, "y": 7.0} for name in sizes
    ]
    return Corpus(pa.Table.from_pylist(images, IMAGES), pa.Table.from_pylist(fixations, FIXATIONS))
