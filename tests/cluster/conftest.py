from collections.abc import Iterator

import pytest

from cluster.connection import connected


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    """One local Ray for the tests of this folder."""
    with connected("local", spare_cpus=1):
        yield
