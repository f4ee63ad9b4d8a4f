"""Files that hold many images: tar, zip, Parquet and Arrow.

A member's URI is its container's, a `#` and its name there (`s3://b/train-000.tar#a/00012.jpg`), or
for a row of a table its number from 0 (`train.parquet#17`), after its column's name where that is
not the one that would be guessed (`train.parquet#thumbnail/17`).
"""

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["tar", "tar.gz", "zip", "parquet", "arrow"]

_KINDS: dict[str, Kind] = {
    ".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz", ".zip": "zip", ".parquet": "parquet",
    ".arrow": "arrow",
}  # fmt: skip

_SUFFIX = "|".join(re.escape(suffix) for suffix in _KINDS)
_CONTAINER = re.compile(rf".*?({_SUFFIX})", re.DOTALL | re.IGNORECASE)
_MEMBER = re.compile(rf"(.*?({_SUFFIX})(?:\?[^#]*)?)#(.*)", re.DOTALL | re.IGNORECASE)
_PLACE = re.compile(r"(.*)@(\d+)\+(\d+)", re.DOTALL)


TABLES = ("parquet", "arrow")
"""Kinds whose members are rows."""

TAR_HEADER = 512
"""Bytes before those of a member of a tar."""


class Place(NamedTuple):
    """The bytes of a container that hold a member with its header; of a `.tar.gz`, those of the
    tar. A plan keeps it behind the container's version, so that no worker looks for it again."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of an archive.

    Attributes:
        name: in it.
        size: its bytes, unpacked.
        place: where it lies.
    """

    name: str
    size: int
    place: Place


def kind_of_container(name: str) -> Kind | None:
    """What a file is by its name, if it is a container."""
    found = _CONTAINER.fullmatch(name)
    return _KINDS[found[1].lower()] if found else None


def split_member(uri: str) -> tuple[str, Kind, str] | None:
    """The container of a member's URI, its kind, and the member's name; None for any other URI."""
    found = _MEMBER.fullmatch(uri)
    return (found[1], _KINDS[found[2].lower()], found[3]) if found else None


def with_place(version: str | None, place: Place) -> str:
    """A container's version with a member's place."""
    return f"{version or ''}@{place.start}+{place.length}"


def place_in(version: str | None) -> Place | None:
    """The place that a version names."""
    found = _PLACE.fullmatch(version or "")
    return Place(int(found[2]), int(found[3])) if found else None


def version_in(version: str | None) -> str | None:
    """The container's own version in that of a member."""
    found = _PLACE.fullmatch(version or "")
    return found[1] if found else version
