"""A run directory: the settings that it was begun with."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

import gazecore
from gazecore.density.codec import check_factor
from gazecore.errors import InputError, RunMismatch, one_line
from gazecore.images.formats import Limits
from gazecore.results.schema import SCORES_OF, VERSION
from gazecore.shards.directory import (
    ShardedDirectory,
    claim,
    refuse_others,
    require_shard_size,
)
from gazecore.storage import Location
from gazecore.temporaries import TEMPORARY_SUFFIX

MAX_SHARD_SIZE = 65_536
"""A shard is held in memory: 2.6 KB an image, at a density factor of 1 20 KB."""

OWN_COLUMNS = frozenset({*SCORES_OF[VERSION].names, "shard", "as_of"})
"""Names that columns which are kept cannot have, in any case."""

_APART = {"limits", "keep"}
_NOTE, _GIVEN = "about_model", "options"


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
        keep: columns of the input that are carried into the scores.
    """

    input: str
    model: str
    display_size: str
    shard_size: int
    density_factor: int
    limits: Limits
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_shard_size(self.shard_size, MAX_SHARD_SIZE)
        check_factor(self.density_factor)
        taken = [name.lower() for name in (*OWN_COLUMNS, *self.keep)]  # as SQL tells names apart
        for name in self.keep:
            if taken.count(name.lower()) > 1:
                raise InputError(
                    f"--keep {name}: the scores have a column of that name; give it another one in "
                    "the input"
                )

    def as_json(self) -> dict[str, Any]:
        """As run.json holds them. Nothing kept is null, as what older ones do not say."""
        return {**asdict(self), "keep": [*self.keep] or None}


@dataclass(frozen=True)
class ModelNote:
    """What a run calls its model, for people to read; the fingerprint in the settings decides.

    Attributes:
        name: as it was given, `default` or where the bundle was.
        trained_on: what the bundle says, `OSIE, then MIT1003`.
    """

    name: str = ""
    trained_on: str = ""


@dataclass(frozen=True)
class Given:
    """What a run was begun with besides its settings, for whoever goes on with it and leaves it
    out.

    Attributes:
        model, centerbias, backbone_weights: as `ScoringOptions` has them; paths are absolute.
        allow, include, exclude, uri_column, id_column: how its input is listed, likewise.
    """

    model: str = ""
    centerbias: str | None = None
    backbone_weights: str | None = None
    allow: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    uri_column: str | None = None
    id_column: str | None = None


class Run(ShardedDirectory):
    """A run directory, the settings in its run.json, and the model's name if that has one.

    Attributes:
        given: what else it was begun with; None where nobody noted it.
        version: of its tables; runs of older ones are read and not written.
        schema: of its scores.
    """

    def __init__(
        self,
        location: Location,
        settings: RunSettings,
        model: ModelNote = ModelNote(),
        given: Given | None = None,
        version: int = VERSION,
    ) -> None:
        super().__init__(location, settings.shard_size, outcomes="scores", results="densities")
        self.settings = settings
        self.model = model
        self.given = given
        self.version = version
        own = (pa.field(name, pa.string()) for name in settings.keep)
        self.schema = pa.schema([*SCORES_OF[version], *own])
        self.scores = self.outcomes
        self.densities = self.results


def begin_run(
    location: Location,
    settings: RunSettings,
    model: ModelNote = ModelNote(),
    given: Given | None = None,
) -> Run:
    """Start a run, or go on with one that has the same settings.

    Args:
        location: of the run.
        settings: what decides its results.
        model: what a new run calls its model.
        given: what else a new run is begun with.

    Raises:
        RunMismatch: run.json names other settings, which the message lists, or the directory
            holds something else.
    """
    run = find_run(location, settings)
    notes = {
        "schema_version": VERSION,
        "gazecore_version": gazecore.__version__,
        _NOTE: asdict(model),
        **({_GIVEN: asdict(given)} if given else {}),
    }
    claim(location / "run.json", settings.as_json(), notes)
    run.remove_temporaries()
    return run


def find_run(location: Location, settings: RunSettings) -> Run:
    """The run that `begin_run` would start or go on with; nothing is written. Raises the same."""
    marker = location / "run.json"
    if marker.exists():
        run = open_run(location)  # of a format that can be read
        if run.version != VERSION:
            raise RunMismatch(
                f"{location.uri} has run format {run.version}, which this gazecore reads and does "
                f"not go on with: its rows would lack `peaks`; score into another --out"
            )
        refuse_others(marker, settings.as_json())
        return Run(location, settings, run.model, run.given)
    if any(not name.endswith(TEMPORARY_SUFFIX) for name in location.names()):
        raise RunMismatch(f"{location.uri} is not empty and holds no run: use another --out")
    return Run(location, settings)


def begun_run(location: Location) -> Run | None:
    """The run that is there, if one is. Raises InputError as `open_run`."""
    return open_run(location) if (location / "run.json").exists() else None


def open_run(location: Location) -> Run:
    """Open a run directory. Raises InputError where there is none."""
    try:
        content: Mapping[str, Any] = json.loads((location / "run.json").read_bytes())
        version = content["schema_version"]
        if version not in SCORES_OF:
            raise InputError(
                f"{location.uri} has run format {version}, "
                f"this gazecore reads {' and '.join(map(str, SCORES_OF))}"
            )
        note = content.get(_NOTE, {})  # which runs of gazecore 0.1 do not have
        model = ModelNote(**{key: str(note.get(key, "")) for key in asdict(ModelNote())})
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content.get(_GIVEN, {}).items()
        }
        settings = RunSettings(
            **{key: content[key] for key in RunSettings.__dataclass_fields__ if key not in _APART},
            limits=Limits(**content["limits"]),
            keep=tuple(map(str, content.get("keep") or ())),
        )
        options = Given(**given) if given else None
    except FileNotFoundError:
        raise InputError(f"{location.uri} is not a run directory: it has no run.json") from None
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{location.uri}/run.json cannot be read: {one_line(error)}") from error
    return Run(location, settings, model, options, version)
