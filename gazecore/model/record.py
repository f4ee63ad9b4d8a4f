"""What a bundle says about its training, put in words. Needs no torch."""

from collections.abc import Collection, Mapping
from typing import Any

_LISTED = 8


def stages(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The stages of a training, from the first to the last; see `training.fit.describe`."""
    found: list[Mapping[str, Any]] = []
    stage = training
    while isinstance(stage, Mapping) and stage:
        found.insert(0, stage)
        stage = stage.get("started_from", {})
    return found


def trained_on(training: Mapping[str, Any]) -> str:
    """The corpora of all stages in their order, `OSIE, then MIT1003`; empty where none is named."""
    return ", then ".join(str(s["corpus"]) for s in stages(training) if "corpus" in s)


def seen_in_training(
    corpus: str, judged: Collection[str], training: Mapping[str, Any]
) -> list[str]:
    """The judged images of a corpus that a model was trained on, at any stage of its training.

    Args:
        corpus: its digest, see `Corpus.digest`.
        judged: images of it.
        training: what the model's bundle says, see `training.fit.describe`.
    """
    found = _stages_on(corpus, training)
    return sorted({i for stage in found for i in set(judged) - set(stage["held_out_images"])})


def held_out_images(corpus: str, training: Mapping[str, Any]) -> list[str] | None:
    """The images of a corpus that a model's training held out at every stage; None if it does not
    say. `corpus` and `training` as in `seen_in_training`."""
    found = [set(stage["held_out_images"]) for stage in _stages_on(corpus, training)]
    return sorted(set.intersection(*found)) if found else None


def _stages_on(corpus: str, training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The stages of a training that this corpus took part in."""
    return [s for s in stages(training) if corpus in s.get("corpora_sha256", [])]


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
