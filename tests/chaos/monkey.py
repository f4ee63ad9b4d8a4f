"""Faults on purpose: ends or freezes processes of a test cluster, from a seed."""

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Literal, get_args

import psutil
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gazecore.wording import counted

Kind = Literal["actor", "worker", "node", "freeze"]
"""What is hit: an actor that works on shards, any worker process, or a whole node, which ends at
once, or stands still for a while and then goes on as if nothing had been."""

KINDS: tuple[Kind, ...] = get_args(Kind)

_HEAD = "node:__internal_head__"
_ACTOR = "ray::ShardActor"
_PATIENCE = 8.0
"""Seconds for a node to answer."""

_DELAY = 0.5
"""Seconds until a node is hit, so that the answer gets away first."""


@dataclass(frozen=True)
class Fault:
    """What was done.

    Attributes:
        kind: see `Kind`.
        node: id of the node that it was done on.
        what: the processes that it was done to.
    """

    kind: Kind
    node: str
    what: str


class Chaos:
    """Strikes the cluster that this process is connected to. The same seed draws the same numbers;
    what they hit depends on what is there.

    Attributes:
        thawed: when the last node that was frozen goes on, by `time.monotonic`.
    """

    thawed = 0.0

    def __init__(self, seed: int, freeze_seconds: float = 10.0) -> None:
        """Args: freeze_seconds: how long a frozen node stands still."""
        self._rng = random.Random(seed)
        self._freeze_seconds = freeze_seconds

    def strike(self, kinds: tuple[Kind, ...] = KINDS) -> Fault | None:
        """Do one fault; None where there is nothing that it could hit.

        The node that holds the cluster's head is never ended or frozen: without it Ray itself ends.
        """
        kind = self._rng.choice(kinds)
        draw = self._rng.random()
        nodes = sorted(
            node["NodeID"]
            for node in ray.nodes()
            if node["Alive"] and not (kind in ("node", "freeze") and _HEAD in node["Resources"])
        )
        self._rng.shuffle(nodes)
        for node in nodes:
            where = NodeAffinitySchedulingStrategy(node, soft=False)
            strike = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=where)(_strike)
            struck = strike.remote(kind, draw, self._freeze_seconds)
            try:
                what = ray.get(struck, timeout=_PATIENCE)
            except RayError:  # the node went away meanwhile, or stands still
                ray.cancel(struck, force=True)
                continue
            if what:
                if kind == "freeze":
                    self.thawed = time.monotonic() + _DELAY + self._freeze_seconds
                return Fault(kind, node, what)
        return None


def _strike(kind: Kind, draw: float, freeze_seconds: float) -> str | None:
    """Runs on the node that is hit, in a worker whose parent is the node's raylet."""
    raylet = psutil.Process(os.getppid())
    workers = [
        process
        for process in sorted(raylet.children(recursive=True), key=lambda process: process.pid)
        if process.pid != os.getpid()
    ]
    if kind in ("actor", "worker"):
        prefix = _ACTOR if kind == "actor" else "ray::"
        # Ray's agents are no workers: the node ends with them, and the head's whole cluster.
        hit = [p for p in workers if _title(p).startswith(prefix) and "Agent" not in _title(p)]
        if not hit:
            return None
        victim = hit[int(draw * len(hit))]
        title = _title(victim)
        os.kill(victim.pid, signal.SIGKILL)
        return f"{title}, pid {victim.pid}"
    pids = " ".join(str(process.pid) for process in (raylet, *workers))
    if kind == "node":
        deed = f"kill -KILL {pids}"
    else:
        deed = f"kill -STOP {pids}; sleep {freeze_seconds}; kill -CONT {pids}"
    # By a process that outlives this one, which ends with its raylet.
    subprocess.Popen(["sh", "-c", f"sleep {_DELAY}; {deed}"], start_new_session=True)
    return f"the raylet and {counted(len(workers), 'workers')}"


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
