"""What tests share: small pictures, a tiny model, and the corpora if they are there."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import structlog
import torch
from PIL import Image
from s3fs import S3FileSystem

from gazecore.model.bundle import ModelBundle, parse_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.readout import Readout, ReadoutConfig
from gazecore.model.tiny import TINY_SPEC, TinyBackbone
from tests.objects import forget_keys

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure() -> None:
    # Nothing leaves this machine, and no test finds another test's (or a user's) Ray.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # which it asks for once, when it is imported
    os.environ.pop("RAY_ADDRESS", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"nodes", "chaos"} & set(item.path.parts):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
        if item.get_closest_marker("corpora") and not (SHARED / "osie").is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no recorded fixations in {SHARED}"))


@pytest.fixture(autouse=True)
def _fresh_storages() -> None:
    """Connections are kept; one test's endpoint must not serve the next test."""
    S3FileSystem.clear_instance_cache()
    forget_keys()


@pytest.fixture(autouse=True)
def _pillows_own_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """`decode` sets Pillow's cap for the whole process; one test's must not serve the next."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """A command that runs in this process logs to its own stderr, which ends with its test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded fixations and hostile images; only for tests marked `corpora`."""
    return SHARED


@pytest.fixture(scope="session")
def tiny_bytes() -> bytes:
    """`tiny_bundle`, made once."""
    return tiny_bundle()


def tiny_bundle() -> bytes:
    """A bundle over the tiny backbone: two members with fixed random weights."""
    torch.manual_seed(3)
    readout = Readout(ReadoutConfig(TINY_SPEC.channels, members=2)).eval().requires_grad_(False)
    y, x = torch.meshgrid(torch.linspace(-2, 2, 128), torch.linspace(-2, 2, 128), indexing="ij")
    prior = (-(x**2 + y**2)).flatten().log_softmax(0).view(128, 128)
    return ModelBundle(TINY_SPEC, readout, prior, metrics={"made": "for tests"}).to_bytes()


@pytest.fixture
def tiny_file(tiny_bytes: bytes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny bundle as a file."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    path.write_bytes(tiny_bytes)
    return str(path)


@pytest.fixture(scope="session")
def tiny(tiny_bytes: bytes) -> DeepGaze:
    """The tiny model, ready to predict."""
    return DeepGaze(parse_bundle(tiny_bytes, "tiny"), TinyBackbone())


def make_photo(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """A smooth colourful picture, different for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def make_photos(folder: Path) -> Path:
    """Fill a folder with ten small JPEGs of three sizes, in two directories."""
    for seed in range(10):
        path = folder / ("a" if seed % 2 else "b") / f"photo-{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_photo(seed, *[(96, 64), (64, 96), (80, 80)][seed % 3]).save(path)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """See `make_photos`."""
    return make_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """An S3 protocol server on this machine; yields the environment that points at it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(endpoint, timeout=1).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.2)
        yield {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "planted-key-id",
            "AWS_SECRET_ACCESS_KEY": "planted-secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.fixture
def s3_client(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of that server, which the environment names meanwhile."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return boto3.client("s3")
