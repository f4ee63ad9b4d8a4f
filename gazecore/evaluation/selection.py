"""Which images of a corpus are judged."""

from collections.abc import Mapping, Sequence
from typing import Any

from gazecore.corpus.schema import Corpus
from gazecore.errors import InputError, one_line
from gazecore.model.record import stages
from gazecore.storage import Location
from gazecore.wording import counted

HELD_OUT = "held-out"
"""Asks for the images that the model's training held out."""


def select_images(
    corpus: Corpus,
    images: str | None,
    limit: int | None,
    held_out: Sequence[str] | None,
) -> tuple[list[str], dict[str, int]]:
    """The images to judge, in the corpus's order, and how many were left out, by reason.

    Args:
        corpus: images and fixations.
        images: None for all, `held-out`, or a text file with an image_id on each line.
        limit: take only so many, the first ones.
        held_out: what the model says that its training held out, or None if it does not say.

    Raises:
        InputError: nothing remains, the list cannot be read, or it names an unknown image.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit must be positive, not {limit}")
    wanted = set(corpus.image_ids if images is None else _listed(corpus, images, held_out))
    points = corpus.points()
    chosen = [i for i in corpus.image_ids if i in wanted and len(points[i])]
    left_out = {
        "images that --images does not name": len(corpus.image_ids) - len(wanted),
        "images without fixations": len(wanted) - len(chosen),
        "images beyond --limit": len(chosen) - len(chosen[:limit]),
    }
    left_out = {why: count for why, count in left_out.items() if count}
    chosen = chosen[:limit]
    if not chosen:
        raise InputError("there is no image with fixations to judge")
    return chosen, left_out


def seen_in_training(
    corpus: Corpus, judged: Sequence[str], training: Mapping[str, Any]
) -> list[str]:
    """The judged images that a model was trained on, at any stage of its training."""
    found = _stages(corpus, training)
    return sorted({i for stage in found for i in set(judged) - set(stage["held_out_images"])})


def held_out_images(corpus: Corpus, training: Mapping[str, Any]) -> list[str] | None:
    """The images of a corpus that a model's training held out at every stage; None if it does not
    say.

    Args:
        corpus: perhaps one that the model was trained on.
        training: what the model's bundle says about its training, see `training.fit.describe`.
    """
    found = [set(stage["held_out_images"]) for stage in _stages(corpus, training)]
    return sorted(set.intersection(*found)) if found else None


def _stages(corpus: Corpus, training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The stages of a training that this corpus took part in."""
    return [s for s in stages(training) if corpus.digest in s.get("corpora_sha256", [])]


def _listed(corpus: Corpus, images: str, held_out: Sequence[str] | None) -> list[str]:
    if images == HELD_OUT:
        if not held_out:
            raise InputError(
                "the model was not trained on this corpus, or held out none of its images"
            )
        listed, source = list(held_out), "the model's training"
    else:
        try:
            text = Location(images).read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the list {images}: {one_line(error)}") from error
        listed, source = [line.strip() for line in text.splitlines() if line.strip()], images
    unknown = set(listed) - set(corpus.image_ids)
    if unknown:
        raise InputError(
            f"{source} names {counted(len(unknown), 'images')} that the corpus does not have, "
            f"such as {min(unknown)}"
        )
    return listed
