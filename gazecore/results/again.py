"""A run's images beside their scores and densities: they are read once more, from their URIs."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image, ImageOps

from gazecore.errors import DecodeError
from gazecore.images.decode import decode
from gazecore.images.read import read
from gazecore.results.run import Run
from gazecore.results.schema import read_densities
from gazecore.results.stream import StoredDensity, densities_in
from gazecore.shards.directory import shard_name
from gazecore.shards.tally import OK
from gazecore.tables import read_table

_FORMATS, _MODES = ("JPEG", "PNG", "WEBP"), ("L", "RGB", "RGBA", "P")
"""Of files that every Pillow opens and every browser shows."""

Scored = tuple[dict[str, Any], StoredDensity]


def scored_densities(run: Run, columns: Sequence[str]) -> Iterator[Scored]:
    """The rows of scores that are `ok` with their densities, in the plan's order.

    Args:
        run: whose shards that are done are read.
        columns: of the scores, image_id among them; those that the run has are in the rows.
    """
    wanted = [name for name in dict.fromkeys((*columns, "status")) if name in run.schema.names]
    for shard in sorted(run.shards_done()):
        scores = read_table(run.scores / shard_name(shard), run.schema, wanted).to_pylist()
        rows = {row["image_id"]: row for row in scores if row.pop("status") == OK}
        for density in densities_in(read_densities(run.densities / shard_name(shard))):
            if density.image_id in rows:
                yield rows[density.image_id], density


def read_again(run: Run, row: Mapping[str, Any]) -> tuple[bytes, Image.Image]:
    """The bytes of an image that was scored, and the image, upright RGB.

    Args:
        run: its caps hold.
        row: uri, height and width of the scores.

    Raises:
        ImageError, StorageUnavailable: it cannot be read any more, or has another size by now.
    """
    limits = run.settings.limits
    data = read(row["uri"], limits)
    image = decode(data, limits)
    if image.size != (row["width"], row["height"]):
        raise DecodeError(
            f"it has {image.width}x{image.height} pixels now, and was scored with "
            f"{row['width']}x{row['height']}"
        )
    return data, image


def portable(data: bytes, image: Image.Image) -> bytes:
    """A file that other programs can show.

    Args:
        data, image: see `read_again`.

    Returns:
        The file as it is, a JPEG, PNG or WebP, if Pillow alone shows of it what was scored; else
        that as PNG.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as plain:
            if plain.mode in _MODES and ImageOps.exif_transpose(plain).size == image.size:
                return data
    except Exception:  # damaged metadata, which our decoder does without
        pass
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
