"""One rule says how many threads compute at once: affinity and quota, whichever is less."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gazecore import cores as module
from gazecore.cores import cores

V2 = "30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"
OTHER = "33 31 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"

Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine of 64 cores on paper, with control groups as its files describe them."""

    def make(groups: list[str], mounts: list[str], files: dict[str, str]) -> None:
        files = files | {
            "proc/self/cgroup": "\n".join(groups) + "\n",
            "proc/self/mountinfo": "\n".join(mounts) + "\n",
        }
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    return make


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 64), ("300000 100000", 3), ("250000 100000", 2), ("50000 100000", 1),
     ("1000 100000", 1), ("12800000 100000", 64), ("nonsense", 64), ("", 64)],
)  # fmt: skip
def test_the_quota_of_version_2(machine: Machine, quota: str, expected: int) -> None:
    machine(["0::/"], [V2], {"sys/fs/cgroup/cpu.max": quota + "\n"})
    assert cores() == expected


@pytest.mark.parametrize(
    ("quota", "expected"), [("-1", 64), ("400000", 4), ("150000", 1), ("20000", 1), ("0", 64)]
)
def test_the_quota_of_version_1(machine: Machine, quota: str, expected: int) -> None:
    folder = "sys/fs/cgroup/cpu,cpuacct/docker/ab"
    files = {f"{folder}/cpu.cfs_quota_us": quota + "\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
    machine(["9:memory:/docker/ab", "4:cpu,cpuacct:/docker/ab", "0::/"], [V1, OTHER, V2], files)
    assert cores() == expected


def test_the_smallest_quota_of_all_groups_around_the_process_counts(machine: Machine) -> None:
    root = "sys/fs/cgroup"
    files = {
        f"{root}/user.slice/job.scope/cpu.max": "900000 100000\n",
        f"{root}/user.slice/cpu.max": "500000 100000\n",
        f"{root}/cpu.max": "max 100000\n",
        f"{root}/other.slice/cpu.max": "100000 100000\n",  # this process is not in it
    }
    machine(["0::/user.slice/job.scope"], [OTHER, V2], files)
    assert cores() == 5


def test_a_container_finds_its_quota_at_the_mount(machine: Machine) -> None:
    quota = {"sys/fs/cgroup/cpu.max": "200000 100000\n"}
    # The host's path, of which only the container's own folder is mounted ...
    machine(["0::/kube/pod7"], [V2.replace(" / /sys", " /kube/pod7 /sys")], quota)
    assert cores() == 2
    # ... or is not even named.
    machine(["0::/elsewhere/pod8"], [V2], quota)
    assert cores() == 2
    machine(["0::/../pod9"], [V2], quota)
    assert cores() == 2


def test_without_control_groups_the_affinity_counts(machine: Machine) -> None:
    assert cores() == 64  # nor is there any /proc
    machine(["0::/", "4:cpu,cpuacct:/"], [OTHER, V1, V2], {})
    assert cores() == 64  # groups without the controller, as at the root
    assert cores(at_most=7) == 7
    assert cores(at_most=100) == 64
    assert cores(at_most=0) == 1


LIBRARIES = """
import json, os, sys
from pathlib import Path
import gazecore.cores
if sys.argv[1] == "affinity":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
else:
    gazecore.cores.ROOT = Path(sys.argv[1])
import jobs
import numpy, pyarrow, torch
from threadpoolctl import threadpool_info
from gazecore.model.bundle import load_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.shards.pipeline import ReadingConfig
from tests.scoring import Scorer
from gazecore.threads import side_by_side
numpy.ones((64, 64)) @ numpy.ones((64, 64))
found = {
    "cores": gazecore.cores.cores(), "torch": torch.get_num_threads(), "arrow": pyarrow.cpu_count(),
    **{pool["internal_api"] + pool["prefix"]: pool["num_threads"] for pool in threadpool_info()},
}
with side_by_side() as pool:
    found["training"] = pool._max_workers
torch.set_num_threads(8)
scorer = Scorer(DeepGaze.load(load_bundle(sys.argv[2]), device="cpu", threads=8))
found["model"] = torch.get_num_threads()
found["finishers"] = scorer.pipeline._finishers._max_workers
print(json.dumps(found))
"""


@pytest.mark.parametrize("limit", ["affinity", "quota"])
def test_every_pool_of_threads_keeps_to_it(tmp_path: Path, tiny_file: str, limit: str) -> None:
    root = "affinity"
    if limit == "quota":
        root = str(tmp_path)
        for name, text in {
            "proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2 + "\n",
            "sys/fs/cgroup/cpu.max": "100000 100000\n",
        }.items():  # fmt: skip
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
    environment = {n: v for n, v in os.environ.items() if not n.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", LIBRARIES, root, tiny_file],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert set(found.values()) == {1}, found


def test_nothing_else_counts_cores() -> None:
    """A pool of threads that counts them itself would not keep to the rule."""
    root = Path(module.__file__).parents[1]
    others, databases = [], []
    for folder in ("gazecore", "cluster", "jobs", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            text = path.read_text()
            if re.search(r"cpu_count\(|sched_getaffinity|PoolExecutor\(\)", text):
                others.append(str(path.relative_to(root)))
            if "duckdb.connect(" in text:
                databases.append(text)
    assert others == ["gazecore/cores.py"]
    assert len(databases) > 2
    # Each says how many threads it takes, and counts them by the rule.
    assert all(re.search(r'"threads": (threads|cores\()', text) for text in databases)
    assert all("cores(" in text for text in databases)
