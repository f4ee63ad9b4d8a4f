"""What a scoring noticed of the input since it was planned, kept for whoever asks the run."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gazecore.errors import InputError, one_line
from gazecore.results.retry import outdated_images
from gazecore.results.run import Run
from gazecore.shards.plan import CHANGED, GONE
from gazecore.shards.planning import PlanSummary
from gazecore.storage import Location
from gazecore.wording import counted

NAME = "noticed.json"


@dataclass(frozen=True)
class Noticed:
    """Planned images that are not as the run has them.

    Attributes:
        changed, gone: how many were overwritten, and are no longer in the input.
        is_begun: a rescan has begun, and has not ended: the plan knows them.
    """

    changed: int = 0
    gone: int = 0
    is_begun: bool = False

    def __str__(self) -> str:
        parts = [(self.changed, "changed"), (self.gone, "deleted")]
        what = " and ".join(f"{count:,} {word}" for count, word in parts if count)
        images = counted(self.changed + self.gone, "images").partition(" ")[2]
        if self.is_begun:
            return f"{what} {images}: a rescan was not finished; `gazecore score --rescan` goes on"
        return (
            f"{what} {images} since they were planned: `gazecore score --rescan` scores the "
            "changed ones again, and marks the deleted ones `gone`"
        )


def read_noticed(run: Run) -> Noticed | None:
    """What the last scoring noticed; None: nothing. Raises InputError where the file is damaged."""
    where = _place(run)
    try:
        content: Mapping[str, Any] = json.loads(where.read_bytes())
        return Noticed(int(content["changed"]), int(content["gone"]), bool(content["is_begun"]))
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(
            f"{where.uri} cannot be read ({one_line(error)}): delete it; the same `gazecore score` "
            "writes it anew"
        ) from error


def write_noticed(run: Run, noticed: Noticed | None) -> None:
    """Keep it, in the place of what was noticed before."""
    if noticed is None:
        _place(run).remove()
    elif noticed != read_noticed(run):
        _place(run).publish((json.dumps(asdict(noticed)) + "\n").encode())


def note_rescan(run: Run, changed: int, gone: int) -> None:
    """A rescan is about to note in the plan what a listing shows."""
    write_noticed(run, Noticed(changed, gone, True))


def note_planned(run: Run, plan: PlanSummary, is_rescan: bool) -> None:
    """Keep what is not as the run has it.

    Args:
        run: planned.
        plan: what its planning found.
        is_rescan: the plan notes it; what is left of that is counted.
    """
    before = read_noticed(run)
    left = Counter[str]()
    if is_rescan or (before and before.is_begun):
        left = sum(outdated_images(run).values(), left)
    if not is_rescan:
        left.update({CHANGED: plan.changed, GONE: plan.gone})
    is_begun = is_rescan or left.total() > plan.changed + plan.gone
    write_noticed(run, Noticed(left[CHANGED], left[GONE], is_begun) if left.total() else None)


def _place(run: Run) -> Location:
    return run.location / NAME
