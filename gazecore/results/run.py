"""A run directory: what it was begun with, and which of its shards are done."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import gazecore
from gazecore.errors import InputError, RunMismatch, one_line
from gazecore.images.decode import Limits
from gazecore.results.schema import VERSION
from gazecore.storage import Location

_SHARD = re.compile(r"shard-(\d{6,})\.parquet")


@dataclass(frozen=True)
class RunSettings:
    """What decides a run's results. A run goes on only with the settings that it was begun with.

    Attributes:
        input: the folder, glob or list, as an absolute path or URI.
        model: fingerprint of the bundle.
        display_size: `1024` or `native`.
        shard_size: images per shard.
        density_factor: grid cells per stored density cell.
        limits: caps per image.
    """

    input: str
    model: str
    display_size: str
    shard_size: int
    density_factor: int
    limits: Limits

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise InputError(f"shard_size must be positive, not {self.shard_size}")


class Run:
    """A run directory and the settings in its run.json."""

    def __init__(self, location: Location, settings: RunSettings) -> None:
        self.location = location
        self.settings = settings
        self.plan = location / "plan"
        self.scores = location / "scores"
        self.densities = location / "densities"

    def shards_done(self) -> set[int]:
        """Numbers of the shards whose scores file exists."""
        return shard_numbers(self.scores.names())

    def remove_temporaries(self) -> None:
        """Delete what writers that are gone left half-written."""
        for directory in (self.location, self.plan, self.scores, self.densities):
            directory.remove_temporaries()


def begin_run(location: Location, settings: RunSettings) -> Run:
    """Start a run, or go on with one that has the same settings.

    Raises:
        RunMismatch: run.json names other settings, which the message lists, or the directory
            holds something else.
    """
    marker = location / "run.json"
    if marker.exists():
        run = open_run(location)
        differences = [
            f"{key}: it has {old}, now {new}"
            for (key, old), (_, new) in zip(
                _flat(run.settings).items(), _flat(settings).items(), strict=True
            )
            if old != new
        ]
        if differences:
            raise RunMismatch(
                f"{location.uri} was begun with other settings ({'; '.join(differences)}): "
                "use those, or another --out"
            )
    else:
        location.remove_temporaries()
        if location.names():
            raise RunMismatch(f"{location.uri} is not empty and holds no run: use another --out")
        content = {
            "schema_version": VERSION,
            "gazecore_version": gazecore.__version__,
            **asdict(settings),
        }
        try:
            marker.publish((json.dumps(content, indent=2) + "\n").encode(), create=True)
        except FileExistsError:
            return begin_run(location, settings)  # another process began it just now
    run = Run(location, settings)
    run.remove_temporaries()
    return run


def open_run(location: Location) -> Run:
    """Open a run directory. Raises InputError where there is none."""
    try:
        content: Mapping[str, Any] = json.loads((location / "run.json").read_bytes())
        if content["schema_version"] != VERSION:
            raise InputError(
                f"{location.uri} has run format {content['schema_version']}, "
                f"this gazecore reads {VERSION}"
            )
        settings = RunSettings(
            **{key: content[key] for key in RunSettings.__dataclass_fields__ if key != "limits"},
            limits=Limits(**content["limits"]),
        )
    except FileNotFoundError:
        raise InputError(f"{location.uri} is not a run directory: it has no run.json") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{location.uri}/run.json cannot be read: {one_line(error)}") from error
    return Run(location, settings)


def shard_numbers(names: list[str]) -> set[int]:
    """The shards that these file names stand for; other names are ignored."""
    return {int(match[1]) for name in names if (match := _SHARD.fullmatch(name))}


def _flat(settings: RunSettings) -> dict[str, Any]:
    values = asdict(settings)
    limits = values.pop("limits")
    return {**values, **{f"limits.{key}": value for key, value in limits.items()}}
