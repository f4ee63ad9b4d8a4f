"""Which files of a folder or an archive are images that are wanted."""

import fnmatch
import posixpath
from collections import Counter
from collections.abc import Collection

from gazecore.images.containers import kind_of_container
from gazecore.images.formats import (
    LITTER_FOLDERS,
    LITTER_NAMES,
    SUFFIXES,
    UNREAD_SUFFIXES,
    how_to_read,
)

NO_IMAGE = " (no image)"
"""Ends the reason of a file that is not named like a picture."""


class Choice:
    """Which files of a folder are listed; counts what is not.

    Attributes:
        left_out: by reason.
    """

    def __init__(
        self,
        include: Collection[str] = (),
        exclude: Collection[str] = (),
        left_out: Counter[str] | None = None,
    ) -> None:
        """Globs, as `list_images` takes them."""
        self._include, self._exclude = include, exclude
        self.left_out = Counter[str]() if left_out is None else left_out

    def takes(self, path: str) -> bool:
        """Whether to list a file, by its path in the listed folder or in its archive."""
        reason = self._reason(path)
        if reason:
            self.left_out[reason] += 1
        return not reason

    def includes(self, path: str) -> bool:
        """Whether a file is taken by a glob that was asked for."""
        return _first(self._include, path) is not None

    def skips(self) -> None:
        """Count what is named like a file and is a pipe, a socket or a device."""
        self.left_out["no regular file"] += 1

    def _reason(self, path: str) -> str | None:
        """Why a file is left out."""
        if (pattern := _first(self._exclude, path)) is not None:
            return f"by --exclude {pattern}"
        if self.includes(path):
            return None
        *folders, name = path.split("/")
        if litter := next((f for f in folders if f in LITTER_FOLDERS), None):
            return f"in {litter}"
        if litter := next((p for p in LITTER_NAMES if fnmatch.fnmatchcase(name, p)), None):
            return litter
        suffix = posixpath.splitext(name)[1].lower()
        if suffix in UNREAD_SUFFIXES:
            return f"{suffix} ({how_to_read(suffix)})"
        if name.lower().endswith(SUFFIXES) or kind_of_container(name):
            return None
        return f"{suffix or 'without a suffix'}{NO_IMAGE}"


def _first(patterns: Collection[str], path: str) -> str | None:
    """The first glob that a file's path, its name or a folder's above it matches."""
    texts = [path, *path.split("/")] if patterns else []
    fits = (p for p in patterns if any(fnmatch.fnmatchcase(text, p) for text in texts))
    return next(fits, None)
