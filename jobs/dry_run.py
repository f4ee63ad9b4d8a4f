"""What `gazecore score --dry-run` says: what is to do, and what that takes."""

from collections.abc import Mapping

from rich.filesize import decimal

from gazecore.results.estimate import Estimate
from gazecore.wording import counted


def estimate_rows(
    found: Estimate, shard_size: int, again: Mapping[int, int], rate: float | None, actors: int
) -> list[tuple[str, str]]:
    """An estimate, labelled.

    Args:
        found: what is to do.
        shard_size: images per shard.
        again: shards with images to be tried again, and how many.
        rate: images per second of one actor; None: the run's own, if it has any.
        actors: how many.
    """
    images, shards = found.images + sum(again.values()), found.shards + len(again)
    plan = f"{_amount(found.plan.images, found.plan.shards)} of {shard_size:,}"
    rows = [
        ("dry run", "nothing is written"),
        ("plan", f"{plan}; {found.plan.added:,} new"),
        ("to do", _amount(images, shards)),
    ]
    if again:
        rows.append(("", f"{sum(again.values()):,} of them failed before"))
    known = f"{decimal(found.bytes)} in {counted(found.sized, 'images')}"
    of = counted(found.images, "images")
    unknown = f"; the sizes of {images - found.sized:,} are not known"
    return [
        *rows,
        ("input", known + (unknown if images > found.sized else "")),
        ("storage", f"{decimal(found.stored)} for scores and densities of {of}"),
        ("requests", f"{images:,} to read, one an image; {2 * shards:,} to write, two a shard"),
        ("hours", hours(found, images, rate, actors)),
    ]


def _amount(images: int, shards: int) -> str:
    return f"{counted(images, 'images')} in {counted(shards, 'shards')}"


def hours(found: Estimate, images: int, rate: float | None, actors: int) -> str:
    """How long that many images take, and at which rate."""
    if rate:
        return (
            f"{images / rate / actors / 3600:,.1f} with {counted(actors, 'actors')} "
            f"of {rate:g} images/s"
        )
    if found.rate:
        return f"{images / found.rate / 3600:,.1f} at this run's own {found.rate:.1f} images/s"
    return "not known: --rate says how many images an actor does in a second"
