import gc
import os
import time
from pathlib import Path

import pytest

import gazecore.shards.blame
from cluster import driver
from cluster.layout import ActorLayout
from cluster.pool import Pool
from gazecore.errors import RunFailed
from gazecore.results.verify import problems
from gazecore.scoring import ScoringConfig
from tests.processes import scoring_actors
from tests.scoring import make_run

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_run_that_ends_badly_lets_go_of_its_actors(
    photos: Path, tmp_path: Path, tiny_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazecore.shards.blame, "MAX_IN_A_ROW", 1)
    run = make_run(tmp_path / "run", photos, shard_size=1)
    Path(run.densities.path).write_bytes(b"a file where the folder of all shards should be")
    config = ScoringConfig(run.location.uri, run.settings, tiny_bytes)
    gc.collect()
    gc.disable()  # which may come late
    try:
        with pytest.raises(RunFailed, match=r"shards failed one after the other.*densities"):
            driver.run(run, config, layout=ActorLayout(1, 0, 1))
        assert not [found for found in gc.get_objects() if type(found) is Pool]
    finally:
        gc.enable()
    deadline = time.monotonic() + 30
    while scoring_actors(os.getpid()):
        assert time.monotonic() < deadline, "the actors live on"
        time.sleep(0.2)
    Path(run.densities.path).unlink()
    assert driver.run(run, config, layout=ActorLayout(1, 0, 1)).shards == 10
    assert list(problems(run)) == []
