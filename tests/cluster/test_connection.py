import os
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
import ray

import cluster.connection
from cluster.connection import connected
from gazecore.errors import InputError

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


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:8265", "is a dashboard.*HOST:6379"),
        ("ray://127.0.0.1:10001", "for Ray's client.*ray job submit"),
        ("nonsense", "HOST:PORT"),
        ("127.0.0.1:99999", "HOST:PORT"),
        ("127.0.0.1:", "HOST:PORT"),
        ("127.0.0.1:1", "no Ray cluster answers.*refused.*another --address"),
        ("no-such-host.invalid:6379", "no Ray cluster answers"),
    ],
)
def test_an_address_where_no_cluster_is_ends_in_one_line_at_once(address: str, words: str) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=words) as caught, connected(address):
        pass
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_that_listens_and_is_no_clusters_ends_in_one_line(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.connection, "ANSWER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reply() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)
                connection.recv(100)
                if not answer:
                    time.sleep(3)

        threading.Thread(target=reply, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match="no Ray cluster"), connected(address):
            pass


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RAY_TMPDIR": f"/tmp/{'x' * 90}"}, "set RAY_TMPDIR"),
        ({"RAY_TMPDIR": "/proc/none"}, "set RAY_TMPDIR"),
        ({"HOME": "/proc"}, "set RAY_AUTH_TOKEN"),
    ],
)
def test_where_ray_cannot_start_one_line_names_what_helps(
    variables: dict[str, str], words: str
) -> None:
    program = """if True:
        from cluster.connection import connected
        from gazecore.errors import InputError
        try:
            with connected(None):
                print("started")
        except InputError as error:
            print(error)
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_A")}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**clean, **variables}, text=True,
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    assert words in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
