"""What recordings of eye trackers share: they name images, and show some of them again."""

from collections.abc import Callable

import numpy as np

from gazecore.corpus.collect import Collector, image_size
from gazecore.corpus.schema import Corpus
from gazecore.corpus.screen import Box, Size, on_image
from gazecore.errors import CorpusError, InputError, one_line
from gazecore.images.listing import list_images
from gazecore.storage import Location

NOT_SHOWN = "fixations while no image was shown"
NOT_THERE = "fixations on an image that is not there"
UNSEEN = "images that no recording shows"


class Viewings:
    """Gathers viewings: the fixations of one subject on one image, each time that it was shown.

    Attributes:
        collector: what they are gathered in.
    """

    def __init__(self, images: str, option: str) -> None:
        """List the images.

        Args:
            images: folder, prefix, glob or list of them.
            option: what says where they are, for messages.

        Raises:
            InputError: there are none.
        """
        self.collector = Collector()
        self._images, self._option = images, option
        self._uris: dict[str, str] = {}
        self._begun: dict[tuple[str, str], int] = {}
        self._missed = ""
        try:
            for batch in list_images(images):
                for row in batch.to_pylist():
                    if self._uris.setdefault(row["image_id"], row["uri"]) != row["uri"]:
                        raise CorpusError(f"{images}: two images are named {row['image_id']}")
        except InputError as error:
            raise InputError(f"{one_line(error)}: {option} says where the images are") from error
        # By every end of their paths: a recording names the path on the machine that showed it.
        self._named: dict[str, set[str]] = {}
        for image_id in self._uris:
            for end in _ends(image_id):
                self._named.setdefault(end, set()).add(image_id)
                self._named.setdefault(end.rpartition(".")[0], set()).add(image_id)

    def add(
        self,
        name: str,
        subject: str,
        fixations: np.ndarray,
        box_of: Callable[[Size], Box | None],
    ) -> None:
        """Add a viewing; its fixations follow those of the same subject on the same image.

        Args:
            name: of the image, as the recording has it: with folders of another machine, or
                without its suffix.
            subject: who.
            fixations: float (n, 4) in their order: x, y (pixels of the screen, or of the image if
                it stood in no box), t and duration (seconds); NaN where unknown.
            box_of: where an image of this width and height stood on the screen.

        Raises:
            CorpusError: the name is that of several images, or the image cannot be read.
        """
        image_id = self._find(name)
        if image_id is None:
            self._missed = self._missed or name
            self.collector.drop(NOT_THERE, len(fixations))
            return
        if image_id not in self.collector.sizes:
            uri = self._uris[image_id]
            self.collector.add_image(image_id, uri, image_size(Location(uri)))
        height, width = self.collector.sizes[image_id]
        x, y, t, duration = fixations.T
        if box := box_of((width, height)):
            x, y = on_image(x, y, box, (width, height))
        begun = self._begun.get((image_id, subject), 0)
        self._begun[image_id, subject] = begun + len(x)
        self.collector.add_scanpath(image_id, subject, x, y, t, duration, begun + np.arange(len(x)))

    def corpus(self, source: str) -> Corpus:
        """The corpus of what was added. Raises CorpusError if there is nothing."""
        if not self.collector.sizes:
            found = f", such as {self._missed}" if self._missed else ""
            what = (
                "the images that it names are not" if self._missed else "it names no image that is"
            )
            raise CorpusError(
                f"{source}: {what} in {self._images}{found}; {self._option} says where they are"
            )
        self.collector.drop(UNSEEN, len(self._uris) - len(self.collector.sizes))
        return self.collector.corpus()

    def _find(self, name: str) -> str | None:
        for end in _ends(name.replace("\\", "/").strip("\"'")):
            found = self._named.get(end, set())
            if len(found) > 1:
                raise CorpusError(
                    f"{name} may be any of {', '.join(sorted(found)[:3])} in {self._images}: "
                    f"let {self._option} say the folder"
                )
            if found:
                return next(iter(found))
        return None


def _ends(path: str) -> list[str]:
    """`a/b/c`, `b/c` and `c` of `./a/b/c`."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return ["/".join(parts[first:]) for first in range(len(parts))]
