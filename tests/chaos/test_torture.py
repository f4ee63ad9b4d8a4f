import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.conftest import ROOT


@pytest.mark.corpora
def test_hostile_files_on_a_tortured_cluster(tmp_path: Path, shared: Path) -> None:
    # In a process of its own, which holds the cluster and ends it.
    ended = subprocess.run(
        [sys.executable, "-m", "tests.chaos.torture", "--images", str(shared / "hostile"),
         "--runs", "1", "--seed", "23", "--out", str(tmp_path / "table.json")],
        cwd=ROOT, capture_output=True, text=True, timeout=590, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, (ended.stdout, ended.stderr[-2000:])
    (outcome,) = json.loads((tmp_path / "table.json").read_text())
    assert sum(outcome["faults"].values()) >= 5, outcome
    assert outcome["lost"] == outcome["doubled"] == 0
    assert outcome["differing"] == []
    print("\n" + ended.stdout)
