"""Which kind of file names regions."""

import pyarrow as pa

from gazecore.errors import InputError, one_line
from gazecore.regions.boxes import BoxTable
from gazecore.regions.coco import CocoFile
from gazecore.regions.masks import MaskFolder
from gazecore.regions.region import Regions
from gazecore.storage import Location


def open_regions(location: Location) -> Regions:
    """The regions of a table (.parquet, .csv, .tsv), of COCO's JSON, or of a folder of masks.

    Raises:
        InputError: it cannot be read, or lacks a column.
    """
    name = location.path.lower()
    try:
        if name.endswith((".parquet", ".csv", ".tsv")):
            return BoxTable(location)
        if name.endswith(".json"):
            return CocoFile(location)
        if location.fs.isdir(location.path):
            return MaskFolder(location)
        if not location.exists():
            raise InputError(f"there is no file of regions {location.uri}")
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{location.uri} cannot be read: {one_line(error)}") from error
    raise InputError(
        f"{location.uri} is no file of regions: a table of boxes ends in .parquet, .csv or .tsv, "
        "COCO's annotations in .json; masks are PNGs in a folder"
    )
