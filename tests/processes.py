"""Finding and ending the processes that a test started, and no others."""

import contextlib
import os
import signal
from pathlib import Path


def descendants(root: int) -> dict[int, str]:
    """Every process that `root` started, directly or not: pid to command line."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                commands[int(entry.name)] = command.decode(errors="replace").strip()
    found: dict[int, str] = {}
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor != root:
            ancestor = parents[ancestor]
        if ancestor == root and pid != root:
            found[pid] = commands[pid]
    return found


def kill_tree(root: int) -> None:
    """SIGKILL a process and everything that it started."""
    for pid in [root, *descendants(root)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def scoring_actors(root: int) -> list[int]:
    """The scoring actors among the processes that `root` started."""
    return [pid for pid, name in descendants(root).items() if name.startswith("ray::ShardActor")]


def training_workers(root: int) -> list[int]:
    """Ray Train's workers among the processes that `root` started."""
    return [
        pid for pid, name in descendants(root).items() if name.startswith("ray::RayTrainWorker")
    ]
