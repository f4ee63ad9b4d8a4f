"""Which images of a corpus are judged."""

from collections.abc import Sequence

from gazecore.corpus.schema import Corpus
from gazecore.errors import InputError, one_line
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
