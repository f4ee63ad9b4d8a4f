"""A run's images with their densities drawn over them, a picture each."""

import functools
import io
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from gazecore.density.peaks import Peak
from gazecore.errors import ImageError, InputError, StorageUnavailable, one_line
from gazecore.ownership import is_our_picture, refuse_foreign
from gazecore.results.again import Scored, read_again, scored_densities
from gazecore.results.export import Written, exportable, picture_names
from gazecore.results.reader import Results
from gazecore.results.run import Run
from gazecore.results.stream import of_each
from gazecore.steps import Steps, told, uncounted
from gazecore.storage import Location
from gazecore.view.canvas import SUFFIXES, PictureFormat
from gazecore.view.heatmap import draw_heatmap
from gazecore.view.overlay import draw_overlay

Style = Literal["overlay", "heatmap"]


@dataclass(frozen=True)
class PictureOptions:
    """How densities are drawn.

    Attributes:
        format: of the files.
        size: pixels of the longer side at most, without the legend.
        legend: say below the picture what is seen in it.
        transparent: heat maps without the image, to be laid over it.
    """

    format: PictureFormat = "png"
    size: int = 1024
    legend: bool = True
    transparent: bool = False

    def check(self, style: Style) -> None:
        """Raises InputError where they make no sense together."""
        if not 16 <= self.size <= 16384:
            raise InputError(f"a picture of {self.size} pixels cannot be drawn: 16 to 16384")
        if self.transparent and style != "heatmap":
            raise InputError("only heat maps can be transparent: an overlay is the image itself")
        if self.transparent and self.format == "jpeg":
            raise InputError("a JPEG cannot be transparent: take png or webp")


def draw(
    image: Image.Image,
    log_density: Any,
    style: Style,
    options: PictureOptions,
    peaks: list[Peak] | None = None,
) -> bytes:
    """A picture as a file; see `draw_overlay` and `draw_heatmap`."""
    file = io.BytesIO()
    size, legend, format = options.size, options.legend, options.format
    if style == "overlay":
        draw_overlay(image, log_density, file, None, size, legend, peaks, format)
    else:
        draw_heatmap(image, log_density, file, size, legend, options.transparent, format)
    return file.getvalue()


def export_pictures(
    results: Results,
    out: Location,
    style: Style,
    options: PictureOptions,
    *,
    overwrite: bool = False,
    partial: bool = False,
    steps: Steps = uncounted,
) -> Written:
    """Draw all images of a run again, with their densities; the images are read anew.

    Args:
        results: the run.
        out: the folder; files of the same names are replaced, others left alone.
        style, options: how.
        overwrite, partial, steps: see `results.export.export_run`.

    Raises:
        InputError: see `export_run`; or the options make no sense.
    """
    options.check(style)
    counts = exportable(results, out, partial)
    ids = results.plan()["image_id"].to_pylist()
    names = picture_names(ids, SUFFIXES[options.format])
    refuse_foreign([out / name for name in names.values()], is_our_picture, overwrite)
    unread: dict[str, str] = {}
    with steps("pictures", counts.ok) as on_picture:
        scored = scored_densities(results.run, ["image_id", "uri", "height", "width", "peaks"])
        read = functools.partial(_with_image, results.run)
        for (row, density), image in told(of_each(scored, read), on_picture):
            if isinstance(image, str):
                unread[row["image_id"]] = image
                continue
            peaks = [Peak(**peak) for peak in row["peaks"]] if row.get("peaks") else None
            picture = draw(image, density.grid, style, options, peaks)
            (out / names[row["image_id"]]).publish(picture)
    return Written(counts, counts.ok - len(unread), unread)


def _with_image(run: Run, scored: Scored) -> tuple[Scored, Image.Image | str]:
    try:
        return scored, read_again(run, scored[0])[1]
    except (ImageError, StorageUnavailable) as error:
        return scored, one_line(error)
