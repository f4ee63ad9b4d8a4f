"""Where the members of archives lie, for those who know only their names."""

import threading
import time
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass, field

from gazecore.errors import ImageError, NotFound
from gazecore.images.containers import Entry, Kind
from gazecore.images.containers.archives import entries

KEPT = 8
"""Archives whose members are kept in mind, the ones that were asked for last."""


@dataclass
class _Index:
    begun: float = field(default_factory=time.monotonic)
    members: dict[str, Entry] = field(default_factory=dict)
    broken: ImageError | None = None


class Indexes:
    """What is in archives, each of which is looked through once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Index] = OrderedDict()
        self._looking: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def find(self, container: str, kind: Kind, name: str, since: float = 0) -> Entry:
        """A member of an archive.

        Args:
            container: its URI.
            kind: `tar`, `tar.gz` or `zip`.
            name: of the member.
            since: by `time.monotonic`; what was looked at before may have changed.

        Raises:
            NotFound: there is no such member.
            StorageError: the archive is broken before one of this name.
            AccessDenied, StorageUnavailable: as `fetch`.
        """
        with self._lock:
            looking = self._looking[container]
        with looking:
            with self._lock:
                index = self._kept.get(container)
            if index is None or index.begun < since:
                index = _look_through(container, kind)
            with self._lock:
                self._kept[container] = index
                self._kept.move_to_end(container)
                if len(self._kept) > KEPT:
                    self._looking.pop(self._kept.popitem(last=False)[0], None)
        if found := index.members.get(name):
            return found
        if index.broken:
            raise index.broken
        raise NotFound(f"there is no file {name!r} in {container}")


def _look_through(container: str, kind: Kind) -> _Index:
    index = _Index()
    try:
        for entry in entries(container, kind, Counter()):
            index.members[entry.name] = entry
    except ImageError as error:
        index.broken = error
    return index
