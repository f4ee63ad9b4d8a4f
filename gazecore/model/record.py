"""What a bundle says about its training, put in words. Needs no torch."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LISTED = 8


@dataclass(frozen=True)
class TrainingRecord:
    """What a bundle says about a stage of its training, and about those before. Empty: nothing.

    Attributes:
        corpus: its name.
        corpora_sha256: the digests of what that was, see `Corpus.digest`.
        images, fixations: how many trained.
        split, settings: of the recipe, see `training.recipes`.
        centerbias: how the centre bias was fitted.
        held_out_images: image_id of those that took no part.
        started_from: the stage before.
        command: what made the bundle.
    """

    corpus: str | None = None
    corpora_sha256: Sequence[str] = ()
    images: int | None = None
    fixations: int | None = None
    split: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] | None = None
    centerbias: Mapping[str, Any] | None = None
    held_out_images: Sequence[str] = ()
    started_from: "TrainingRecord | None" = None
    command: str | None = None

    def __post_init__(self) -> None:
        for field, kind in _KINDS.items():
            if not isinstance(value := getattr(self, field), kind):
                raise TypeError(f"training.{field} cannot be {type(value).__name__}")
        for field in ("corpora_sha256", "held_out_images"):
            if not all(isinstance(value, str) for value in getattr(self, field)):
                raise TypeError(f"training.{field} are not all texts")

    @classmethod
    def from_json(cls, header: Mapping[str, Any]) -> "TrainingRecord":
        """From what `to_json` gave. Raises TypeError."""
        before = header.get("started_from")
        before = cls.from_json(before) if isinstance(before, Mapping) else before
        return cls(**{**header, "started_from": before})

    def to_json(self) -> dict[str, Any]:
        """As a bundle's header holds it; `{}` where nothing is known."""
        if self == TrainingRecord():
            return {}
        found = {key: value for key in _KINDS if (value := getattr(self, key)) is not None}
        before = {"started_from": self.started_from.to_json()} if self.started_from else {}
        return {**found, **before}

    def stages(self) -> list["TrainingRecord"]:
        """All stages of the training, from the first to this."""
        before = self.started_from.stages() if self.started_from else []
        return before if self == TrainingRecord() else [*before, self]

    def trained_on(self) -> str:
        """The corpora of all stages in order, `OSIE, then MIT1003`; empty where none is named."""
        return ", then ".join(stage.corpus for stage in self.stages() if stage.corpus)

    def seen(self, corpus: str, judged: Collection[str]) -> list[str]:
        """The judged images of a corpus, of that digest, that trained at any stage."""
        stages = self._stages_on(corpus)
        return sorted({i for stage in stages for i in set(judged) - set(stage.held_out_images)})

    def held_out(self, corpus: str, images: Collection[str]) -> list[str] | None:
        """Of the images of a corpus, of that digest, those that took no part at any stage; None if
        the record does not say. Stages name the images of all corpora that trained together."""
        found = [set(stage.held_out_images) for stage in self._stages_on(corpus)]
        return sorted(set(images).intersection(*found)) if found else None

    def _stages_on(self, corpus: str) -> list["TrainingRecord"]:
        return [stage for stage in self.stages() if corpus in stage.corpora_sha256]


_KINDS: dict[str, Any] = {
    "command": str | None,
    "corpus": str | None,
    "corpora_sha256": list | tuple,
    "images": int | None,
    "fixations": int | None,
    "split": Mapping | None,
    "settings": Mapping | None,
    "centerbias": Mapping | None,
    "held_out_images": list | tuple,
}
"""The fields of a record but `started_from`, in the order in which people read them."""


def said(value: object) -> str:
    """A value of a bundle's header as words; of a long list how many it has."""
    match value:
        case Mapping():
            return ", ".join(f"{_words(key)} {said(inner)}" for key, inner in value.items())
        case [] | None:
            return "none"
        case list() if len(value) > _LISTED:
            return f"{len(value):,}, --json names them"
        case list():
            return " ".join(map(said, value))
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def reached(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a bundle says it reached, labelled, with units."""
    rows: list[tuple[str, str]] = []
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            rows += [(f"{_words(key)}: {what}", text) for what, text in reached(value)]
        else:
            text = f"{value:.3f}" if isinstance(value, float) else said(value)
            unit = " bit per fixation" if "information_gain" in key else ""
            label = _words(key).replace("gain fixations", "gain, over fixations")
            rows.append((label, text + unit))
    return rows


def _words(key: object) -> str:
    return str(key).replace("_", " ")
