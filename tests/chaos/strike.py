"""Ends and freezes processes of a test cluster while a job runs on it."""

import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.connection import connected
from gazecore.errors import InputError
from jobs.command import run_command
from jobs.console import out, show_rows
from tests.chaos.monkey import KINDS, Chaos, Kind


@dataclass(frozen=True)
class ChaosOptions:
    """End and freeze processes of a Ray cluster, to see that a job on it loses nothing.

    Only for a cluster that is yours and that nobody else uses: nodes that are ended stay so until
    you, or an autoscaler, start others. The node that holds the cluster's head is spared.
    """

    address: str
    """The test cluster, HOST:PORT, or `auto` on one of its nodes. There is no default."""
    seed: int = 0
    """Decides which faults come, and in which order."""
    faults: int = 20
    """How many."""
    every: float = 20.0
    """Seconds between them."""
    kinds: tuple[Kind, ...] = KINDS
    """Which: an actor that works on shards or any worker is ended (SIGKILL), a whole node is ended,
    or frozen (SIGSTOP, and SIGCONT after --freeze-seconds)."""
    freeze_seconds: float = 45.0
    """How long a frozen node stands still. Ray takes it for dead after about 30 s."""

    def __post_init__(self) -> None:
        if self.faults < 1 or not 0 <= self.every < math.inf or not self.kinds:
            raise InputError("--faults must be positive, --every not negative, --kinds not empty")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("chaos", ChaosOptions, chaos, argv, prog="python -m tests.chaos.strike")


def chaos(options: ChaosOptions) -> int:
    """Connect, strike, count."""
    counts: Counter[str] = Counter()
    with connected(options.address):
        monkey = Chaos(options.seed, options.freeze_seconds)
        for number in range(options.faults):
            if number:
                time.sleep(options.every)
            fault = monkey.strike(options.kinds)
            if fault:
                counts[fault.kind] += 1
                out.print(f"{fault.kind:<8} node {fault.node[:8]}  {fault.what}", soft_wrap=True)
            else:
                out.print("nothing to hit", soft_wrap=True)
    show_rows([("faults", str(counts.total())), *((k, str(n)) for k, n in counts.items())])
    return 0


if __name__ == "__main__":
    main(sys.argv[1:])
