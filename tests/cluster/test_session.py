import os
import subprocess
import sys

import psutil
import pytest
import ray

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_local_ray_is_reached_from_this_machine_alone() -> None:
    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]

    @ray.remote
    def work() -> None: ...

    ray.get(work.remote())
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


INTRUDER = """
import sys
from ray._raylet import GcsClient

print(len(GcsClient(address=sys.argv[1]).get_all_node_info()))
"""


def test_a_local_ray_has_no_dashboard_and_answers_no_one_without_its_token() -> None:
    assert not ray.get_runtime_context().worker.node.webui_url
    address = ray.get_runtime_context().gcs_address
    for mode, answers in (("token", True), ("disabled", False)):
        asked = subprocess.run(
            [sys.executable, "-c", INTRUDER, address],
            env={**os.environ, "RAY_AUTH_MODE": mode}, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        assert (asked.stdout.strip() == "1") == answers, asked.stderr
        assert answers or "token" in asked.stderr.lower()
