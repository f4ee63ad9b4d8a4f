"""How many threads may compute at once: one rule, for all pools of threads and all libraries."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
"""Where /proc and the control groups are found."""


def cores(at_most: int | None = None) -> int:
    """How many cores this process may keep busy.

    As many as its CPU affinity allows, and no more than the CPU quota of its control groups (v1 and
    v2, its own and those around it), of which a last part of a core is left out: threads beyond
    either would only make each other wait.

    Args:
        at_most: what somebody asked for; None: all there are.

    Returns:
        At least 1.
    """
    limits: list[float] = [len(os.sched_getaffinity(0)), *_quotas()]
    if at_most is not None:
        limits.append(at_most)
    return max(1, int(min(limits)))


def limit_libraries() -> None:
    """Let libraries that are loaded from now on, here and in processes that this one starts, keep
    to `cores`: OpenMP (torch, ncnn), OpenBLAS (numpy, scipy) and Arrow. What the user has set, they
    take from there."""
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def _quotas() -> Iterator[float]:
    """Cores' worth of CPU time that each control group around this process grants."""
    try:
        groups = _read("proc/self/cgroup").splitlines()
        mounts = [line.split(" - ") for line in _read("proc/self/mountinfo").splitlines()]
    except OSError:  # no /proc to look into
        return
    # 0::/a/b is of version 2, 4:cpu,cpuacct:/a/b of version 1.
    paths = {
        controller: path
        for _, controllers, path in (line.split(":", 2) for line in groups)
        for controller in controllers.split(",")
    }
    for where, how in mounts:
        (top, point), (kind, _, options) = where.split(" ")[3:5], how.split(" ")[:3]
        if kind == "cgroup2" and "" in paths:
            path = paths[""]
        elif kind == "cgroup" and "cpu" in options.split(",") and "cpu" in paths:
            path = paths["cpu"]
        else:
            continue
        # Below the folder that is mounted here; a container may not see its own, only the mount.
        inside = PurePosixPath(path)
        inside = inside.relative_to(top if inside.is_relative_to(top) else "/")
        folder = point.lstrip("/")
        for group in (inside, *inside.parents):
            if (quota := _quota(f"{folder}/{group}")) is not None:
                yield quota


def _quota(folder: str) -> float | None:
    try:
        quota, period = _read(f"{folder}/cpu.max").split()  # "max 100000" where there is none
    except (OSError, ValueError):
        try:
            quota, period = (_read(f"{folder}/cpu.cfs_{n}_us") for n in ("quota", "period"))
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 < int(period) else None  # -1: none
    except ValueError:
        return None


def _read(path: str) -> str:
    return (ROOT / path).read_text()
