"""Where the time of a run's scorings went, added up over the commands that scored it."""

import json
from dataclasses import asdict

from gazecore.results.run import Run
from gazecore.shards.clock import PHASES, Times

NAME = "times.json"


def read_times(run: Run) -> Times | None:
    """What is kept; None: nothing, or nothing that makes sense, since no result depends on it."""
    try:
        content = json.loads((run.location / NAME).read_bytes())
        seconds, room = (
            {phase: float(content[kind][phase]) for phase in PHASES} for kind in ("seconds", "room")
        )
        return Times(seconds, float(content["working"]), room, int(content["bytes_read"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def add_times(run: Run, times: Times) -> None:
    """Add those of a command that ends."""
    if times.working:
        total = times + (read_times(run) or Times())
        (run.location / NAME).publish((json.dumps(asdict(total)) + "\n").encode())
