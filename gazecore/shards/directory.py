"""A directory whose plan is worked off shard by shard: a run's, or a feature cache's."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from gazecore.errors import InputError, RunMismatch, one_line
from gazecore.storage import Location

DIGEST = "sha256"
"""What a marker calls the digest of the rest of it."""

_SHARD = re.compile(r"shard-(\d{6,})\.parquet")


def shard_name(shard: int) -> str:
    """File name of a shard, the same for its outcomes and its results."""
    return f"shard-{shard:06d}.parquet"


class ShardedDirectory:
    """A plan, and for each shard that is done a file of results and a file of outcomes.

    Attributes:
        location: the directory.
        shard_size: images per shard.
        plan: where the plan's parts are.
        outcomes: one row for every planned image; a shard is done when its file is here.
        results: one row for every image that ended well.
        takes_missing: executors take up shards that are not done; False: only what they are given
            besides.
    """

    def __init__(self, location: Location, shard_size: int, *, outcomes: str, results: str) -> None:
        self.location = location
        self.shard_size = shard_size
        self.plan = location / "plan"
        self.outcomes = location / outcomes
        self.results = location / results
        self.takes_missing = True

    def shards_done(self) -> set[int]:
        """Numbers of the shards whose outcomes file exists."""
        return shard_numbers(self.outcomes.names())

    def commit(self, shard: int, outcomes: bytes, results: bytes) -> None:
        """Publish a shard's two files. It is done from the moment that its outcomes appear."""
        name = shard_name(shard)
        (self.results / name).publish(results)
        (self.outcomes / name).publish(outcomes)

    def remove_temporaries(self) -> None:
        """Delete what writers that are gone left half-written."""
        for directory in (self.location, self.plan, self.outcomes, self.results):
            directory.remove_temporaries()


def require_shard_size(size: int, most: int) -> None:
    """Raise InputError unless a shard may hold so many images; `most` is what memory can take."""
    if not 1 <= size <= most:
        raise InputError(f"shard_size must be 1 to {most:,}, not {size}")


def shard_numbers(names: list[str]) -> set[int]:
    """The shards that these file names stand for; other names are ignored."""
    return {int(match[1]) for name in names if (match := _SHARD.fullmatch(name))}


def claim(
    marker: Location,
    settings: Mapping[str, Any],
    notes: Mapping[str, Any] | None = None,
    what: str = "",
) -> None:
    """Begin the directory that `marker` lies in, or go on where it was begun with these settings.

    Args:
        marker: a JSON file, written once.
        settings: what decides the results, as JSON can hold it.
        notes: more to write, which may differ the next time.
        what: how the message calls the directory.

    Raises:
        RunMismatch: it was begun with other settings, which the message lists.
        InputError: the marker cannot be read.
    """
    if not marker.exists():  # which is not to need leave to write
        content = {**(notes or {}), **settings}
        text = json.dumps({**content, DIGEST: digest(content)}, indent=2) + "\n"
        try:
            marker.publish(text.encode(), create=True)
            return
        except FileExistsError:
            pass
    refuse_others(marker, settings, what)


def digest(content: Mapping[str, Any]) -> str:
    """sha256 of what a marker holds beside it, in hexadecimal."""
    rest = {key: value for key, value in content.items() if key != DIGEST}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def refuse_others(marker: Location, settings: Mapping[str, Any], what: str = "") -> None:
    """Raise RunMismatch where a directory was begun with other settings; see `claim`."""
    try:
        found = json.loads(marker.read_bytes())
        old, new = (_flat(values) for values in (found, json.loads(json.dumps(dict(settings)))))
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{marker.uri} cannot be read: {one_line(error)}") from error
    differences = [
        f"{key}: it has {old.get(key)}, now {value}"
        for key, value in new.items()
        if old.get(key) != value
    ]
    if differences:
        name = what or marker.uri.rpartition("/")[0]
        raise RunMismatch(
            f"{name} was begun with other settings ({'; '.join(differences)}): "
            "use those, or another --out"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys with dots between them."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
