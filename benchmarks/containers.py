"""What images cost to read in the forms that collections are kept in: requests and images a second.

    python -m benchmarks.containers [--images 2000] [--latency 0.02] [--skip-feeding]

The same photographs, of sizes such as ImageNet's, lie on an S3 server (rclone's, on this machine)
as single objects, four tars, a compressed tar, a zip, a Parquet of bytes, and the files of a
Hugging Face data set. Each request waits for `--latency` seconds before it is sent, as a bucket's
first byte takes 10 to 30 milliseconds and a server on this machine none. `reading` is what a worker
reads, two shards at once by sixteen threads, the best of three turns; `feeding` is the whole
job around a network that takes no time, where decoding is most of the work. Requests are counted as
this process sends them. The gate compares the bytes that were read, too.
"""

import argparse
import asyncio
import contextlib
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

from s3fs import S3FileSystem

from benchmarks.environment import report
from benchmarks.feed import SHARD, Fake, feed, make_images, s3_server
from gazecore.images import s3
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.images.read import Reader
from gazecore.shards.worker import SHARDS_AT_ONCE
from tests.containers import write_parquet, write_tar, write_zip

THREADS, TURNS = 16, 3
GROUP = 100
"""Rows of a row group: what the `datasets` library writes of images."""

FORMS = ("objects", "tars", "tar-gz", "zip", "parquet", "hugging-face")


def write_forms(buckets: Path, images: Mapping[str, bytes]) -> None:
    """Each form as a bucket, beside the one of single objects."""
    for form in FORMS[1:]:
        (buckets / form).mkdir()
    names = list(images)
    for number in range(4):
        some = {name: images[name] for name in names[number::4]}
        write_tar(buckets / "tars" / f"train-{number:03d}.tar", some)
        path = buckets / "hugging-face" / "data" / f"train-{number:05d}-of-00004.parquet"
        path.parent.mkdir(exist_ok=True)
        write_parquet(path, some, rows=GROUP, hf=True)
    write_tar(buckets / "tar-gz" / "train.tar.gz", images)
    write_zip(buckets / "zip" / "train.zip", images)
    write_parquet(buckets / "parquet" / "train.parquet", images, rows=GROUP)


@contextlib.contextmanager
def requests(latency: float) -> Iterator[list[str]]:
    """What is asked of S3 meanwhile: by obstore, and by s3fs; each after so many seconds."""
    asked: list[str] = []
    call = S3FileSystem._call_s3

    def counted(read: Callable[..., bytes]) -> Callable[..., bytes]:
        def asking(*how: Any) -> bytes:
            asked.append("get")
            time.sleep(latency)
            return read(*how)

        return asking

    async def called(self: Any, method: str, *how: Any, **more: Any) -> Any:
        asked.append(method)
        await asyncio.sleep(latency)
        return await call(self, method, *how, **more)

    with (
        mock.patch.object(s3.Bucket, "read", counted(s3.Bucket.read)),
        mock.patch.object(s3.Bucket, "read_range", counted(s3.Bucket.read_range)),
        mock.patch.object(S3FileSystem, "_call_s3", called),
    ):
        yield asked


def reading(rows: list[dict[str, Any]], latency: float) -> tuple[dict[str, float], list[bytes]]:
    """Read all images, a shard after the other; also the digests of what was read."""

    def read(start: int) -> list[bytes]:
        some = rows[start : start + SHARD]
        reader = Reader(some, Limits())
        found = list(threads.map(reader.read, range(len(some))))
        reader.close()
        return found

    with (
        requests(latency) as asked,
        ThreadPoolExecutor(THREADS) as threads,
        ThreadPoolExecutor(SHARDS_AT_ONCE) as shards,
    ):
        wall, processor = time.perf_counter(), time.process_time()
        found = [data for some in shards.map(read, range(0, len(rows), SHARD)) for data in some]
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    digests = sorted(hashlib.blake2b(data, digest_size=16).digest() for data in found)
    return {
        "images_per_second": round(len(rows) / wall, 1),
        "cpu_ms": round(processor / len(rows) * 1e3, 3),
        "requests_per_image": round(len(asked) / len(rows), 4),
    }, digests


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--skip-feeding", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    contents = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        buckets = Path(name) / "buckets"
        (buckets / "objects").mkdir(parents=True)
        make_images(buckets / "objects", "ImageNet-like", arguments.images)
        images = {p.name: p.read_bytes() for p in sorted((buckets / "objects").iterdir())}
        megabytes = sum(map(len, images.values())) / 1e6
        write_forms(buckets, images)
        del images
        stack.enter_context(s3_server(buckets))
        rows = {}
        for form in FORMS:
            started = time.perf_counter()
            with requests(arguments.latency) as asked:
                listing = list_images(f"s3://{form}")
                rows[form] = [row for batch in listing for row in batch.to_pylist()]
            seconds = round(time.perf_counter() - started, 2)
            found[form] = {"listing": {"seconds": seconds, "requests": len(asked)}}
            reading(rows[form][:SHARD], 0)  # so that all connections are there
        for _ in range(TURNS):
            for form in FORMS:
                numbers, contents[form] = reading(rows[form], arguments.latency)
                best = found[form].setdefault("reading", numbers)
                if numbers["images_per_second"] > best["images_per_second"]:
                    found[form]["reading"] = numbers
        for form in FORMS:
            if not arguments.skip_feeding:
                with requests(arguments.latency):
                    out = Path(name) / "runs" / form
                    found[form]["feeding"] = feed(f"s3://{form}", out, Fake)
            print(f"{form}: {found[form]}", flush=True)
    single = found["objects"]["reading"]["images_per_second"]
    times = {
        form: round(found[form]["reading"]["images_per_second"] / single, 2) for form in FORMS[1:]
    }
    same = all(digests == contents["objects"] for digests in contents.values())
    aimed = min(times[form] for form in ("tars", "parquet", "hugging-face"))
    report(
        "containers", images=arguments.images, latency=arguments.latency,
        megabytes=round(megabytes, 1), found=found, times_single_objects=times,
        gate={"same_bytes": same, "three_times_as_fast": aimed >= 3, "holds": same and aimed >= 3},
    )  # fmt: skip


if __name__ == "__main__":
    main()
