"""Which files of a folder or an archive are images that are wanted."""

import fnmatch
import posixpath
from collections import Counter
from collections.abc import Collection

from gazecore.images.containers import kind_of_container
from gazecore.images.formats import LITTER_FOLDERS, LITTER_NAMES, SUFFIXES, UNREAD_SUFFIXES


class Choice:
    """Which files of a folder are listed; counts what is not and yet looks like a picture.

    Attributes:
        left_out: by reason.
    """

    def __init__(self, include: Collection[str], left_out: Counter[str] | None) -> None:
        self._include = include
        self.left_out = Counter[str]() if left_out is None else left_out

    def takes(self, path: str) -> bool:
        """Whether to list a file, by its path in the listed folder or in its archive."""
        if self.includes(path):
            return True
        *folders, name = path.split("/")
        suffix = posixpath.splitext(name)[1].lower()
        if suffix in UNREAD_SUFFIXES:
            self.left_out[f"{suffix} (not read here)"] += 1
            return False
        if not (name.lower().endswith(SUFFIXES) or kind_of_container(name)):
            return False
        if litter := next((f for f in folders if f in LITTER_FOLDERS), None):
            self.left_out[f"in {litter}"] += 1
        elif litter := next((p for p in LITTER_NAMES if fnmatch.fnmatchcase(name, p)), None):
            self.left_out[litter] += 1
        return litter is None

    def includes(self, path: str) -> bool:
        """Whether a file is taken by a name that was asked for."""
        parts = path.split("/")
        return any(fnmatch.fnmatchcase(part, p) for p in self._include for part in parts)

    def skips(self) -> None:
        """Count what is named like a file and is a pipe, a socket or a device."""
        self.left_out["no regular file"] += 1
