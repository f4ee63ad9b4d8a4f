"""Drains this node of a Ray cluster once AWS gives notice of taking the spot machine back.

    python -m cluster.notice &

Asks the machine's metadata service every five seconds. A drained node's actors finish their shards
and get no more; others start elsewhere.
"""

import http.client
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
import tyro

from cluster.logs import configure_logging

POLL_SECONDS = 5.0

log = structlog.get_logger()


@dataclass(frozen=True)
class NoticeOptions:
    """Wait for AWS's notice that this spot machine will be taken back, and drain its Ray node."""

    metadata: str = "http://169.254.169.254"
    """The machine's metadata service."""
    address: str | None = None
    """The Ray cluster. By default the one that this machine belongs to."""
    node_id: str | None = None
    """The node. By default this one."""


def main() -> None:
    """Wait and drain; ends with what `ray drain-node` ends with."""
    options = tyro.cli(
        NoticeOptions, prog="python -m cluster.notice", config=(tyro.conf.DisallowNone,)
    )
    configure_logging()
    while (end := announced_end(options.metadata)) is None:
        time.sleep(POLL_SECONDS)
    seconds = max(0, int((end - datetime.now(UTC)).total_seconds()))
    log.warning("spot_notice", seconds_left=seconds)
    where = {"--address": options.address, "--node-id": options.node_id}
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node"]
    command += [word for name, value in where.items() if value for word in (name, value)]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot notice"]
    command += ["--deadline-remaining-seconds", str(seconds)]
    sys.exit(subprocess.run(command, check=False).returncode)


def announced_end(metadata: str) -> datetime | None:
    """When this machine will be taken away; None while there is no word of it."""
    try:
        seconds = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        token = {"X-aws-ec2-metadata-token": _ask(f"{metadata}/latest/api/token", "PUT", seconds)}
        text = _ask(f"{metadata}/latest/meta-data/spot/termination-time", "GET", token)
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (OSError, http.client.HTTPException, ValueError):
        return None  # 404 without a notice; whatever else it is, the next time may tell


def _ask(url: str, method: str, headers: dict[str, str]) -> str:
    # Not through a proxy that the environment names: the service is this machine's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method=method, headers=headers)
    with opener.open(request, timeout=2) as answer:
        return str(answer.read(200).decode())


if __name__ == "__main__":
    main()
