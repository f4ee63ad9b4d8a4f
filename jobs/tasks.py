"""How commands have passes over a run's tables done: in this process or on a cluster."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.console import waiting

if TYPE_CHECKING:
    from gazecore.tasks import Tasks


@contextmanager
def on_cluster(address: str | None) -> Iterator["Tasks | None"]:
    """Who does the tasks: a cluster, if one is named or this runs in one, else nobody.

    Args:
        address: of a cluster, as `--address` has it.

    Raises:
        InputError: there is none at that address.
    """
    if not (address or os.environ.get("RAY_ADDRESS")):
        yield None
        return
    from cluster.tasks import tasks_on

    with waiting("connecting to Ray", tasks_on(address)) as tasks:
        yield tasks
