"""The pieces of a run's images as files beside each other."""

import posixpath
from collections.abc import Sequence

from gazecore.density.crops import Crop
from gazecore.errors import ImageError, InputError, one_line
from gazecore.images.cut import cut, was_cut
from gazecore.images.formats import SUFFIXES
from gazecore.images.read import read
from gazecore.ownership import refuse_foreign
from gazecore.results.export import dataset_names, short_name
from gazecore.results.reader import Results
from gazecore.results.run import Run
from gazecore.storage import Location

Cut = tuple[str | None, str | None]
"""The file that was written, or why none was."""


class CropFiles:
    """Where the pieces go: of `a/beach.jpg` and 16:9 to `a/beach-16x9.jpg`."""

    def __init__(
        self, run: Run, folder: Location, aspects: Sequence[str], overwrite: bool = False
    ) -> None:
        """Name all files, before any is written.

        Args:
            run: whose images.
            folder: where to.
            aspects: of the pieces.
            overwrite: replace files that gazecore did not make; never an image of the run.

        Raises:
            InputError: a file of others would be written over, a name cannot be a file's, or the
                folder lies in the run.
        """
        if f"{folder.uri}/".startswith(f"{run.location.uri}/"):
            raise InputError("--files lies in the run, which holds its own files only")
        plan = Results(run).plan()
        uris = plan["uri"].to_pylist()
        self._folder = folder
        self._uris = dict(zip(plan["image_id"].to_pylist(), uris, strict=True))
        self._names = {
            image_id: [_name(name, self._uris[image_id], aspect) for aspect in aspects]
            for image_id, name in dataset_names(list(self._uris)).items()
        }
        names = [name for own in self._names.values() for name in own]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"two images would both be cut to {twice}")
        targets = [folder / name for name in names]
        images = {Location(uri).uri if "://" not in uri else uri for uri in uris}
        if over := next((target.uri for target in targets if target.uri in images), None):
            raise InputError(f"{over} is an image of the run: name another folder for --files")
        refuse_foreign(targets, was_cut, overwrite)

    def write(self, image_id: str, size: tuple[int, int], crops: Sequence[Crop]) -> list[Cut]:
        """Cut an image; what is wrong with it is said of each of its pieces.

        Args:
            image_id: in the run.
            size: height and width that the run has of it.
            crops: one for each aspect.

        Raises:
            StorageUnavailable: the storage does not answer.
        """
        try:
            data = read(self._uris[image_id])
            boxes = [(c.x, c.y, c.x + c.width, c.y + c.height) for c in crops]
            pieces = cut(data, size, boxes)
        except ImageError as error:
            return [(None, f"{error.code}: {one_line(error)}")] * len(crops)
        for name, piece in zip(self._names[image_id], pieces, strict=True):
            (self._folder / name).publish(piece)
        return [(name, None) for name in self._names[image_id]]


def _name(name: str, uri: str, aspect: str) -> str:
    """The file of a piece; its suffix is the image's, or that of what is read for it."""
    stem, suffix = posixpath.splitext(name)
    if suffix.lower() not in SUFFIXES:
        stem, suffix = name, posixpath.splitext(uri.partition("?")[0])[1]
        suffix = suffix if suffix.lower() in SUFFIXES else ""
    cut_name = f"{stem}-{aspect.replace(':', 'x')}{suffix}"
    return "/".join(short_name(part) for part in cut_name.split("/"))
