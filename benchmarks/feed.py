"""What a GPU is fed with: images a second, and the processor's time for one, outside the network.

    python -m benchmarks.feed [--images 400] [--skip-before]

The network is a fake that takes a GPU's batches and answers at once with a summary that was made
beforehand; everything else is the job's own: reading, decoding, resizing, batches, rows, files. The
images are of three kinds, made from photographs that packages ship: 1024 x 768, 12 megapixels, and
a mixture of sizes such as ImageNet's. They are read from files, and from an S3 server (rclone's)
beside it on the same machine, whose time does not count. It stands in for Google's and Azure's too:
of those, GETs alone are counted.

`before` is how gazecore 0.1 did it, in the same run: s3fs, Pillow's decoder and bicubic, statistics
in numpy from densities that are copied from the device.
"""

import argparse
import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from benchmarks.environment import report
from benchmarks.photos import sample_photos
from gazecore.cores import cores
from gazecore.density.codec import encode
from gazecore.density.summary import Summary, summarise
from gazecore.geometry import DisplaySize, network_size, parts
from gazecore.images import s3
from gazecore.images.decode import NetworkInput, decode
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.model.readout import mix
from gazecore.results.run import Run, RunSettings, begin_run
from gazecore.scoring import ScoringStage
from gazecore.shards import local
from gazecore.shards.directory import shard_name
from gazecore.shards.planning import update_plan
from gazecore.shards.stage import ReadingConfig, Row
from gazecore.storage import Location
from tests.numbers import reference_statistics
from tests.scoring import Loaded

MEMBERS = 10
SHARD = 256
MOST = 16
"""Images that a GPU takes at once, see `TorchVGG.batch_size`."""

BESIDE_A_GPU = ReadingConfig(decoders=cores())
"""All cores decode."""

KINDS = ("1024x768", "12 megapixels", "ImageNet-like")

COMMON = (
    (500, 375, 25), (500, 333, 12), (375, 500, 8), (333, 500, 4), (500, 334, 3), (640, 480, 3),
    (500, 374, 2), (500, 400, 2), (300, 225, 1), (400, 300, 1),
)  # fmt: skip
"""Sizes and their shares in per cent; the rest is anything from 100 to 1000 pixels."""


def imagenet_sizes(count: int) -> list[tuple[int, int]]:
    """Widths and heights such as ImageNet's: few sizes are most of it, and there are hundreds."""
    rng = np.random.default_rng(12)
    shares = np.array([share for _, _, share in COMMON]) / 100
    rest = 1 - shares.sum()
    chosen = rng.choice(len(COMMON) + 1, count, p=[*shares, rest])
    sizes = []
    for number in chosen:
        if number < len(COMMON):
            sizes.append(COMMON[number][:2])
        else:
            longer = int(rng.choice([500, rng.integers(100, 1000)]))
            other = max(75, int(longer * rng.uniform(0.4, 1)))
            sizes.append((longer, other) if rng.random() < 0.7 else (other, longer))
    return sizes


def bucket_of(kind: str) -> str:
    """A name that S3 takes."""
    return kind.lower().replace(" ", "-")


def make_images(folder: Path, kind: str, count: int) -> None:
    """JPEGs cut from photographs, at a quality of 90."""
    photos = list(sample_photos().values())
    sizes = {
        "1024x768": [(1024, 768)] * count,
        "12 megapixels": [(4032, 3024)] * count,
        "ImageNet-like": imagenet_sizes(count),
    }[kind]
    for number, (width, height) in enumerate(sizes):
        photo = photos[number % len(photos)]
        scale = 1.1 * max(width / photo.width, height / photo.height)
        photo = photo.resize((int(photo.width * scale) + 1, int(photo.height * scale) + 1))
        left, top = (number * 13) % (photo.width - width), (number * 7) % (photo.height - height)
        photo.crop((left, top, left + width, top + height)).save(
            folder / f"{number:05d}.jpg", quality=90
        )


class Fake(ScoringStage):
    """Scoring, whose network takes no time.

    Attributes:
        places: of all batches; images: that were in them.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.places = self.images = 0
        self.answers: dict[tuple[int, ...], Any] = {}

    def batch_size(self, height: int, width: int) -> int:
        """As on a GPU."""
        fit = max(1, min(MOST, MOST * 512 * 512 // (height * width)))
        return 1 << fit.bit_length() - 1

    def compute(self, pixels: np.ndarray) -> Summary:
        """A summary that was made beforehand."""
        self.places += len(pixels)
        self.images += len(pixels)
        shape = pixels.shape
        if shape not in self.answers:
            self.answers[shape] = summarise(*densities(shape), factor=4)
        found: Summary = self.answers[shape]
        return found


class FakeBefore(Fake):
    """The same as it was: padded batches, densities in numpy."""

    def compute(self, pixels: np.ndarray) -> Any:
        """Copies of densities, as from a device."""
        self.images += len(pixels)
        size = self.batch_size(*pixels.shape[1:3])
        self.places += size
        pixels = np.pad(pixels, [(0, size - len(pixels)), (0, 0), (0, 0), (0, 0)])
        if pixels.shape not in self.answers:
            self.answers[pixels.shape] = [t.numpy() for t in densities(pixels.shape)]
        return [values.copy() for values in self.answers[pixels.shape]]

    def finish(
        self, row: Row, image: NetworkInput, computed: Any, position: int
    ) -> tuple[Row, Row]:
        """Statistics and codec, an image at a time."""
        mixture, members, centerbias = computed
        size = image.height, image.width
        numbers = reference_statistics(mixture[position], members[position], centerbias, *size)
        values, offset = encode(mixture[position], 4)
        sides = {"height": image.height, "width": image.width}
        named = {"image_id": row["image_id"]}
        score = {**named, "uri": row["uri"], "status": "ok", **sides, **numbers}
        grid = {"grid_height": values.shape[0], "grid_width": values.shape[1]}
        return score, {
            **named,
            **sides,
            **grid,
            "log_density": values.ravel(),
            "log_offset": offset,
        }


def densities(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Made-up densities of images of a shape: mixtures, members, centre bias."""
    n, height, width = shape[0], shape[1] // 2, shape[2] // 2
    generator = torch.Generator().manual_seed(1)
    small = torch.randn(n, MEMBERS, height // 8, width // 8, generator=generator) * 3
    logits = torch.nn.functional.interpolate(small, (height, width), mode="bicubic")
    members = logits.flatten(2).log_softmax(2).view_as(logits)
    return mix(members), members, members[0, 0]


def to_network_before(
    data: bytes, display_size: DisplaySize, limits: Limits, device: None
) -> NetworkInput:
    """Decode whole, and resize with Pillow."""
    image = decode(data, limits)
    height, width = network_size(image.height, image.width, display_size)
    pixels = np.array(image.resize((width, height), Image.Resampling.BICUBIC))
    return NetworkInput(image.height, image.width, pixels)


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Images are read and decoded as gazecore 0.1 did."""
    with (
        mock.patch("gazecore.shards.pipeline.to_network", to_network_before),
        mock.patch.object(s3, "read", lambda fs, path, end, by_s3fs: by_s3fs()),
    ):
        yield


@contextlib.contextmanager
def rclone(folder: Path, *options: str) -> Iterator[str]:
    """`rclone serve s3` of a folder, whose folders are buckets; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    server = subprocess.Popen(
        ["rclone", "serve", "s3", str(folder), "--addr", address, "--config", os.devnull, *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(address.split(":")):
                break
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[None]:
    """A server of a folder that the environment points at."""
    with rclone(folder, "--auth-key", "key,secret") as address:
        keys = {
            "AWS_ENDPOINT_URL": f"http://{address}", "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
            # With a range of an object it sends the checksum of all of it.
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }  # fmt: skip
        with mock.patch.dict(os.environ, keys):
            yield


@contextlib.contextmanager
def other_server(folder: Path) -> Iterator[None]:
    """The same for gs:// and az://: a GET of theirs is one of S3's, and this server asks for no
    keys."""
    with rclone(folder) as address:
        keys = {
            "STORAGE_EMULATOR_HOST": address, "NO_GCE_CHECK": "true",
            "AZURE_STORAGE_CONNECTION_STRING":
                f"BlobEndpoint=http://{address};SharedAccessSignature=sv=1&sig=x",
        }  # fmt: skip
        with mock.patch.dict(os.environ, keys):
            yield


def feed(source: str, out: Path, make: Callable[[Run], Fake]) -> dict[str, float]:
    """Work a collection off: images/s, CPU milliseconds an image, and how full batches were."""
    settings = RunSettings(source, "fake", "1024", SHARD, 4, Limits())
    run = begin_run(Location(str(out)), settings)
    plan = update_plan(run, list_images(source))
    stage = make(run)
    # Once before, so that the fake's answers are there, and all libraries and connections.
    local.run(run, Loaded(run.location.uri, stage))
    for shard in run.shards_done():
        (run.scores / shard_name(shard)).remove()
    stage.places = stage.images = 0
    wall, processor = time.perf_counter(), time.process_time()
    tally = local.run(run, Loaded(run.location.uri, stage, BESIDE_A_GPU))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    assert tally.ok == plan.images, tally
    return {
        "images_per_second": round(plan.images / wall, 1),
        "cpu_ms": round(processor / plan.images * 1e3, 2),
        "fill": round(stage.images / stage.places, 3),
    }


def fetches(bucket: str, count: int, scheme: str = "s3") -> dict[str, float]:
    """GETs a second and CPU milliseconds each, by sixteen threads; of what S3 lists."""
    from concurrent.futures import ThreadPoolExecutor

    from gazecore.images.fetch import fetch

    rows = [row for batch in list_images(f"s3://{bucket}") for row in batch.to_pylist()]
    for row in rows:
        row["uri"] = row["uri"].replace("s3://", f"{scheme}://", 1)
    wanted = [rows[i % len(rows)] for i in range(count)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda row: fetch(row["uri"], row["size"], Limits()), wanted[:32]))
        wall, processor = time.perf_counter(), time.process_time()
        list(threads.map(lambda row: fetch(row["uri"], row["size"], Limits()), wanted))
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {"gets_per_second": round(count / wall), "cpu_ms": round(processor / count * 1e3, 3)}


def listed_fill(count: int = 1000) -> dict[str, float]:
    """How full batches are on a listing of sizes like ImageNet's, now and in sixteen places."""
    groups: dict[tuple[int, int], int] = {}
    before = after = 0
    sizes = imagenet_sizes(count)
    for start in range(0, count, SHARD):
        groups.clear()
        for width, height in sizes[start : start + SHARD]:
            shape = network_size(height, width, "1024")
            groups[shape] = groups.get(shape, 0) + 1
        before += sum(-(-n // MOST) * MOST for n in groups.values())
        after += sum(b.stop - b.start for n in groups.values() for b in parts(n, MOST))
    return {
        "sizes": len(set(sizes)),
        "shapes": len({network_size(h, w, "1024") for w, h in sizes}),
        "sixteen_places": round(count / before, 3),
        "powers_of_two": round(count / after, 3),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--skip-before", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        for kind in KINDS:
            folder = Path(name) / "buckets" / bucket_of(kind)
            folder.mkdir(parents=True)
            few = arguments.images // 10
            make_images(folder, kind, few if kind == "12 megapixels" else arguments.images)
        stack.enter_context(s3_server(Path(name) / "buckets"))
        for kind in KINDS:
            folder = Path(name) / "buckets" / bucket_of(kind)
            for place, source in (("files", str(folder)), ("s3", f"s3://{bucket_of(kind)}")):
                out = Path(name) / "runs" / f"{bucket_of(kind)}-{place}"
                found[f"{kind}, {place}"] = {"now": feed(source, out / "now", Fake)}
                if not arguments.skip_before:
                    with as_before():
                        before = feed(source, out / "before", FakeBefore)
                    found[f"{kind}, {place}"]["before"] = before
                print(f"{kind}, {place}: {found[f'{kind}, {place}']}", flush=True)
        gets = {"now": fetches("1024x768", 4000)}
        with as_before():
            gets["before"] = fetches("1024x768", 1000)
        stack.enter_context(other_server(Path(name) / "buckets"))
        other_gets = {scheme: fetches("1024x768", 4000, scheme) for scheme in ("gs", "az")}
    fill = listed_fill()
    least = found["1024x768, s3"]["now"]["cpu_ms"]
    report(
        "feed", images=arguments.images, found=found, s3_gets=gets, other_gets=other_gets,
        fill=fill,
        gate={
            "cpu_ms_at_most_5": least <= 5, "fill_at_least_0.95": fill["powers_of_two"] >= 0.95,
            "gets_at_least_1500": gets["now"]["gets_per_second"] >= 1500,
            "holds": least <= 5 and fill["powers_of_two"] >= 0.95,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
