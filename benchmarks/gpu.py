"""Everything about a GPU in one go, in under nine minutes: is it right, how fast, and where from.

    python -m benchmarks.gpu [--out gpu] [--corpus CORPUS] [--images 3000] [--minutes 8.5]

It needs neither Ray nor a network. In OUT it leaves `gpu.json` and `gpu.md`, after each part, so
that what was measured is kept if time runs out. CORPUS is a folder that `gazecore ingest` made;
without it no information gain is measured. `--device cpu` rehearses it all on small
numbers: then nothing is a measurement of anything.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from scipy.special import logsumexp

from benchmarks.environment import environment
from benchmarks.feed import listed_fill, make_images
from benchmarks.photos import sample_photos
from gazecore.corpus.schema import load_corpus
from gazecore.evaluation.held_out import score_held_out
from gazecore.geometry import GRID_STRIDE, level_sizes
from gazecore.model import vgg
from gazecore.model.bundle import load_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.readout import mix
from gazecore.results.settings import ScoringOptions
from gazecore.scoring import Request, ScoringStage
from gazecore.shards import local
from gazecore.shards.stage import ReadingConfig
from tests.scoring import Loaded

SHAPES = ((384, 512), (512, 384), (512, 512), (288, 512), (128, 512))
BATCHES = (1, 2, 4, 8, 16)
TILES = ((4, 8, 4), (8, 8, 4), (8, 8, 8), (8, 16, 4), (8, 16, 8))
"""Rows, columns and warps of the readout's kernel that are tried."""


class Check:
    """One model on the device, what was found so far, and how much time is left."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.out: Path = arguments.out
        self.device: str = arguments.device
        self.is_real = self.device != "cpu"
        self.corpus: str | None = arguments.corpus
        self.images: int = arguments.images if self.is_real else 6
        self.until = time.monotonic() + arguments.minutes * 60
        self.bundle = load_bundle()
        self.model = DeepGaze.load(
            self.bundle, device=self.device, executor="torch", compiled=self.is_real
        )
        self.found: dict[str, Any] = {"environment": environment(), "is_real": self.is_real}

    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    def wait(self) -> None:
        """Until the device has done what it was asked."""
        if self.is_real:
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object], at_least: float = 0.5) -> float:
        """How long one call takes on the device, when many follow each other."""
        for _ in range(3 if self.is_real else 1):
            run()
        self.wait()
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < (at_least if self.is_real else 0):
            for _ in range(5):
                run()
            self.wait()
            count += 5
        if not count:
            run()
            count = 1
        return (time.perf_counter() - started) / count

    def pixels(self, count: int, size: tuple[int, int] = (384, 512)) -> np.ndarray:
        """Photographs of a size of the network's, uint8 (count, h, w, 3)."""
        photos = [np.array(p.resize(size[::-1])) for p in sample_photos().values()]
        return np.stack([np.roll(photos[i % len(photos)], 13 * i, 1) for i in range(count)])


def tests(check: Check) -> dict[str, Any]:
    """The tests marked `gpu`, and those that take a GPU where there is one."""
    files = ["tests/gazecore/test_fused.py", "tests/gazecore/test_device.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs"]
    done = [
        subprocess.run([*command, *more], capture_output=True, text=True, timeout=120)
        for more in (["-m", "gpu", "tests/gazecore"], files)
    ]
    return {
        "passed": all(d.returncode == 0 for d in done) and check.is_real,
        "words": " / ".join(d.stdout.strip().splitlines()[-1] for d in done),
    }


def peak(check: Check) -> dict[str, float]:
    """What the card reaches in bf16: TFLOP/s of a product of two square matrices."""
    side = 8192 if check.is_real else 256
    a = torch.randn(side, side, device=check.device).bfloat16()
    return {"tflops": 2 * side**3 / check.seconds(lambda: a @ a, 2) / 1e12}


def accuracy(check: Check) -> dict[str, Any]:
    """Log densities against the float32 reference on the processor."""
    reference = DeepGaze.load(check.bundle, device="cpu", executor="torch")
    photos = check.pixels(50 if check.is_real else 2)
    nats, bits = [], []
    for start in range(0, len(photos), 2):  # batches, as in a job
        pixels = photos[start : start + 2]
        found = check.model.predict(pixels).log_density.astype(np.float64)
        for one, log_p in zip(pixels, found, strict=True):
            expected = reference.predict(one[None]).log_density[0].astype(np.float64)
            nats.append(float(np.abs(log_p - expected).max()))
            bits.append(float((np.exp(expected) * (expected - log_p)).sum() / np.log(2)))
            assert abs(logsumexp(log_p)) < 1e-3
    return {
        "images": len(nats), "largest_nat": max(nats), "kl_bits": float(np.mean(bits)),
        "worst_kl_bits": max(bits),
    }  # fmt: skip


def gain(check: Check) -> dict[str, Any]:
    """Information gain on recorded fixations: in bf16, and in float32."""
    if check.corpus is None:
        return {"left_out": "no --corpus"}
    corpus = load_corpus(check.corpus)
    chosen = corpus.image_ids[: 50 if check.is_real else 1]
    reference = DeepGaze.load(
        check.bundle, device="cpu", executor="auto" if not check.is_real else "torch"
    )
    found = {
        name: score_held_out(model, chosen, corpus).information_gain
        for name, model in (("bf16", check.model), ("float32", reference))
    }
    return {"images": len(chosen), **found, "bits_lost": found["float32"] - found["bf16"]}


def work(height: int, width: int) -> float:
    """Floating point operations of the backbone for one image, a multiplication and its addition
    as two."""
    incoming, total = 3, 0.0
    for block, count in enumerate(vgg.BLOCKS):
        outgoing = min(64 * 2**block, 512)
        for _ in range(count):
            total += 2 * 9 * incoming * outgoing * (height >> block) * (width >> block)
            incoming = outgoing
    return total


def speed(check: Check) -> list[dict[str, Any]]:
    """Images/s of the model by shape and batch, from pixels to numbers, beside the peak."""
    rows = []
    best = check.found["peak"].get("tflops", math.nan)
    for shape in SHAPES if check.is_real else SHAPES[-1:]:
        for batch in BATCHES if check.is_real else BATCHES[:2]:
            pixels = check.pixels(batch, shape)
            whole = check.seconds(lambda p=pixels: check.model.summarise(p, 4)) / batch
            alone = check.seconds(lambda p=pixels: check.model.backbone.features(p)) / batch
            seen = level_sizes(*shape, check.model.bundle.backbone.pyramid)
            tflops = sum(work(*size) for size in seen) / whole / 1e12
            rows.append(
                {
                    "height": shape[0],
                    "width": shape[1],
                    "batch": batch,
                    "images_per_second": 1 / whole,
                    "backbone_images_per_second": 1 / alone,
                    "tflops": tflops,
                    "share_of_peak": tflops / best,
                }
            )  # fmt: skip
            if check.left() < 200 and check.is_real:
                return rows
    return rows


def parts(check: Check) -> dict[str, Any]:
    """Milliseconds of each part for an image of 512 x 384 in a batch of 16."""
    batch = 16 if check.is_real else 1
    pixels = check.pixels(batch)
    model, readout = check.model, check.model.readout
    with torch.inference_mode():
        features = model.backbone.features(pixels)
        members, centerbias = model.members(pixels)
        first = readout.first(features)
        height, width = (side // GRID_STRIDE for side in pixels.shape[1:3])
        mixture = mix(members)
        steps: dict[str, Callable[[], object]] = {
            "backbone": lambda: model.backbone.features(pixels),
            "first layer": lambda: readout.first(features),
            "wide part": lambda: readout.wide(first, height, width),
            "wide part in torch": lambda: readout.plain(first, height, width),
            "whole readout": lambda: readout(features, centerbias),
            "statistics and codec": lambda: summarised(mixture, members, centerbias),
        }
        found: dict[str, Any] = {
            name: check.seconds(step) / batch * 1e3 for name, step in steps.items()
        }
        found["readout's share of the backbone"] = found["whole readout"] / found["backbone"]
        if check.is_real:
            found |= tiles(check, first, height, width)
    return found


def summarised(mixture: torch.Tensor, members: torch.Tensor, centerbias: torch.Tensor) -> object:
    """See `density.summary.summarise`."""
    from gazecore.density.summary import summarise

    return summarise(mixture, members, centerbias, 4)


def tiles(check: Check, first: torch.Tensor, height: int, width: int) -> dict[str, Any]:
    """Milliseconds an image of the readout's kernel by its tile."""
    from gazecore.model import fused

    found: dict[str, Any] = {}
    default = fused.TILE
    for tile in TILES:
        fused.TILE = tile
        name = "wide part, tile {}x{}, {} warps".format(*tile)
        try:
            run = lambda: check.model.readout.wide(first, height, width)  # noqa: E731
            found[name] = check.seconds(run) / len(first) * 1e3
        except Exception as error:  # a tile that does not fit the card
            found[name] = f"{type(error).__name__}: {str(error)[:200]}"
    fused.TILE = default
    return found


def profile(check: Check) -> list[dict[str, Any]]:
    """Where the device's time goes: its kernels, by their share."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    pixels = check.pixels(16 if check.is_real else 1)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if check.is_real else [])]
    check.model.summarise(pixels, 4)
    with profiled(activities=activities) as found:
        for _ in range(10 if check.is_real else 1):
            check.model.summarise(pixels, 4).wait()
    name = "self_device_time_total" if check.is_real else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda e: -getattr(e, name))
    total = sum(getattr(e, name) for e in events) or 1
    return [
        {"kernel": e.key[:90], "calls": e.count, "share": getattr(e, name) / total}
        for e in events[:25]
    ]


def job(check: Check) -> dict[str, Any]:
    """A job from JPEGs on a disk to Parquet, in this process, by decoder."""
    found: dict[str, Any] = {}
    decoders: tuple[Literal["cpu", "gpu"], ...] = ("cpu", "gpu")
    with tempfile.TemporaryDirectory() as name:
        photos = photographs(Path(name), check.images)
        for decode in decoders:
            with Busy(check.is_real) as busy:
                images, seconds = scored(check.model, photos, Path(name) / decode, decode)
            found[decode] = {
                "images": images, "seconds": seconds, "images_per_second": images / seconds,
                "gpu_busy_percent": busy.percent(),
            }  # fmt: skip
    return found


def photographs(folder: Path, count: int) -> Path:
    """A folder of so many JPEGs of 1024 x 768, of which 200 at most differ."""
    photos = folder / "photos"
    photos.mkdir()
    make_images(photos, "1024x768", min(count, 200))
    for number in range(200, count):
        os.link(photos / f"{number % 200:05d}.jpg", photos / f"{number:05d}.jpg")
    return photos


def scored(
    model: DeepGaze, photos: Path, out: Path, decode: Literal["cpu", "gpu"]
) -> tuple[int, float]:
    """Images scored by a model that is loaded and compiled, and in how many seconds."""
    run = Request(str(photos), str(out), ScoringOptions()).begin().run
    stage = ScoringStage(model, run)
    begun = time.perf_counter()
    tally = local.run(run, Loaded(run.location.uri, stage, ReadingConfig(decode=decode)))
    return tally.ok, time.perf_counter() - begun


def processes(check: Check) -> dict[str, Any]:
    """Images/s of the same job by several processes with a model each, as actors on a part of a
    GPU, which share the cores: one interpreter may not feed a fast card."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        photos = photographs(Path(name), check.images)
        for count in (2, 4) if check.is_real else (2,):
            if check.left() < 100 and check.is_real:
                break
            # Each has its share of the cores, as an actor has.
            mine = psutil.Process().cpu_affinity() or []
            shares = [mine[n::count] or mine for n in range(count)]
            command = [sys.executable, "-m", "benchmarks.gpu", "--device", check.device, "--work"]
            workers = [
                subprocess.Popen(
                    [*command, str(photos), str(Path(name) / f"{count}-{n}"), json.dumps(share)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
                for n, share in enumerate(shares)
            ]  # fmt: skip
            try:
                for worker in workers:
                    assert worker.stdout is not None
                    assert worker.stdout.readline() == "ready\n"
                begun = time.perf_counter()
                with Busy(check.is_real) as busy:
                    for worker in workers:
                        assert worker.stdin is not None
                        worker.stdin.close()  # for which it waits
                    images = sum(int(worker.stdout.read()) for worker in workers if worker.stdout)
                rate = images / (time.perf_counter() - begun)
            finally:
                for worker in workers:
                    worker.kill()
            found[f"{count} processes"] = {
                "images_per_second": rate, "gpu_busy_percent": busy.percent()
            }  # fmt: skip
    return found


def work_as_one_of_several(device: str, photos: Path, out: Path, share: list[int]) -> None:
    """A process of `processes`: says when it is ready, waits, scores, says how many it scored."""
    psutil.Process().cpu_affinity(share)
    is_real = device != "cpu"
    model = DeepGaze.load(load_bundle(), device=device, executor="torch", compiled=is_real)
    few = out.with_name(out.name + "-few")
    few.mkdir(parents=True)
    for path in sorted(photos.iterdir())[: 40 if is_real else 1]:
        os.link(path, few / path.name)
    scored(model, few, out / "few", "cpu")
    print("ready", flush=True)
    sys.stdin.read()
    print(scored(model, photos, out / "run", "cpu")[0], flush=True)


class Busy:
    """How busy the GPU is meanwhile, by nvidia-smi once a second."""

    def __init__(self, is_real: bool) -> None:
        self._command = [
            "nvidia-smi",
            "--query-gpu=utilization.gpu",
            "--format=csv,noheader,nounits",
        ]
        self._is_real, self._seen, self._over = is_real, list[float](), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Busy":
        if self._is_real:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(1):
            done = subprocess.run(self._command, capture_output=True, text=True)
            if done.returncode == 0:
                self._seen.append(float(done.stdout.split()[0]))

    def percent(self) -> float | None:
        """The median of what was seen."""
        return float(np.median(self._seen)) if self._seen else None


def fill(check: Check) -> dict[str, float]:
    """How full batches are on sizes like ImageNet's."""
    return listed_fill()


PARTS = (peak, accuracy, parts, speed, job, tests, processes, gain, profile, fill)


def markdown(found: dict[str, Any]) -> str:
    """The tables for docs/performance.md."""
    where = found["environment"]
    lines = [
        f"{where['gpu'] or 'no GPU: a rehearsal'}; torch {where['torch']}; {where['cores']} cores",
        "",
    ]
    for name, values in found.items():
        if name in ("environment", "is_real"):
            continue
        lines += [f"### {name}", ""]
        rows = values if isinstance(values, list) else [values]
        if not rows:
            continue
        heads = list(rows[0])
        lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        lines += [f"| {' | '.join(_cell(row[head]) for head in heads)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "/").replace("\n", " ")


def main() -> None:
    """Run the check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--corpus")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        photos, out, share = arguments.work
        work_as_one_of_several(arguments.device, Path(photos), Path(out), json.loads(share))
        return
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here: --device cpu rehearses the check without one")
    arguments.out.mkdir(parents=True, exist_ok=True)
    check = Check(arguments)
    for part in PARTS:
        name = part.__name__
        if check.left() < 20:
            check.found[name] = {"left_out": "no time was left"}
            continue
        started = time.monotonic()
        try:
            check.found[name] = part(check)
        except Exception as error:  # the others are measured all the same
            check.found[name] = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
        print(f"{name}, {time.monotonic() - started:.0f} s: {check.found[name]}", flush=True)
        (check.out / "gpu.json").write_text(json.dumps(check.found, indent=1))
        (check.out / "gpu.md").write_text(markdown(check.found))


if __name__ == "__main__":
    main()
