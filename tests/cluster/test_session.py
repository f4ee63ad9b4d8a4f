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
