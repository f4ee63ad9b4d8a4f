"""JPEGs on a device: a GPU where there is one, else torchvision's own decoder, the same way."""

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import gazecore.images.device
from gazecore.errors import ImageError
from gazecore.geometry import network_size
from gazecore.images.decode import to_network
from gazecore.images.device import DeviceDecoder
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.model.deepgaze import DeepGaze
from gazecore.scoring import ScoringStage
from gazecore.shards.pipeline import Pipeline
from gazecore.shards.stage import ReadingConfig
from tests.conftest import make_photo
from tests.scoring import make_run

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def device() -> Iterator[DeviceDecoder]:
    decoder = DeviceDecoder(DEVICE)
    yield decoder
    decoder.close()


def photo(seed: int, size: tuple[int, int] = (640, 480), kind: str = "JPEG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    make_photo(seed, *size).save(buffer, kind, **how)
    return buffer.getvalue()


def look_the_same(one: np.ndarray, other: np.ndarray) -> None:
    assert one.shape == other.shape
    assert one.dtype == other.dtype == np.uint8
    apart = np.abs(one.astype(int) - other)
    # The processor rounds between its two passes. Decoders on GPUs upsample colours their own way.
    assert apart.max() <= (1 if DEVICE == "cpu" else 40)
    assert apart.mean() <= (0.3 if DEVICE == "cpu" else 2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_looks_as_by_the_processor(device: DeviceDecoder, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = photo(1, (640, 470), quality=95, exif=exif)
    found, expected = (to_network(data, "1024", device=d) for d in (device, None))
    assert (found.height, found.width) == (expected.height, expected.width)
    look_the_same(found.pixels, expected.pixels)


def test_a_gray_jpeg_has_three_channels(device: DeviceDecoder) -> None:
    buffer = io.BytesIO()
    make_photo(2, 300, 200).convert("L").save(buffer, "JPEG")
    found, expected = (to_network(buffer.getvalue(), "1024", device=d) for d in (device, None))
    look_the_same(found.pixels, expected.pixels)


def test_those_that_wait_are_served_together_and_each_gets_its_own(
    device: DeviceDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, may_go = [], threading.Event()
    real = gazecore.images.device.decode_jpeg

    def counted(files: list[torch.Tensor], **how: Any) -> list[torch.Tensor]:
        may_go.wait(30)
        together.append(len(files))
        return real(files, **how)

    monkeypatch.setattr(gazecore.images.device, "decode_jpeg", counted)
    files = [photo(seed, (200 + 16 * seed, 320)) for seed in range(20)]
    # Headers that promise what the rest does not hold: nobody else may suffer.
    files[7] = files[7][:400] + b"\xff\xd9"
    sizes = [network_size(320, 200 + 16 * seed, "1024") for seed in range(20)]
    with ThreadPoolExecutor(20) as threads:
        answers = [
            threads.submit(device, *one)
            for one in zip(files, *zip(*sizes, strict=True), strict=True)
        ]
        may_go.set()
        found = [answer.result(60) for answer in answers]
    assert max(together) > 1
    for seed, pixels in enumerate(found):
        if seed != 7:
            assert pixels is not None
            look_the_same(pixels, to_network(files[seed], "1024").pixels)


@pytest.mark.parametrize(
    "data",
    [
        photo(3, kind="PNG"),
        photo(3)[:-300],
        photo(3)[:700],
        b"\xff\xd8\xff\xe0 and no more",
        photo(3).replace(b"\xff\xda", b"\xff\xdb", 1),
    ],
    ids=["PNG", "cut", "cut early", "no picture", "no scan"],
)
def test_what_is_odd_ends_as_by_the_processor(device: DeviceDecoder, data: bytes) -> None:
    assert outcome(data, device) == outcome(data, None)


def outcome(data: bytes, device: DeviceDecoder | None) -> object:
    try:
        return to_network(data, "1024", Limits(), device).pixels.tobytes()
    except ImageError as error:
        return type(error), str(error)


def test_a_jpeg_that_stores_rgb_is_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(data: bytes, height: int, width: int) -> None:
        raise AssertionError("not all decoders know it")

    data = photo(8, keep_rgb=True)
    found = to_network(data, "1024", device=never)
    look = np.abs(found.pixels.astype(int) - to_network(photo(8), "1024").pixels)
    assert look.mean() < 3


def test_other_colours_and_caps_are_the_processors(device: DeviceDecoder) -> None:
    buffer = io.BytesIO()
    make_photo(4, 160, 120).convert("CMYK").save(buffer, "JPEG")
    assert outcome(buffer.getvalue(), device) == outcome(buffer.getvalue(), None)
    small = Limits(max_pixels=1000)
    with pytest.raises(ImageError, match="more than 1000 pixels"):
        to_network(photo(5), "1024", small, device)


def test_a_fault_of_the_program_reaches_those_that_wait(
    device: DeviceDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(gazecore.images.device, "decode_jpeg", broken)
        with pytest.raises(KeyError):
            device(photo(6), 384, 512)
    assert device(photo(6), 384, 512) is not None  # and the next is served


@pytest.mark.corpora
def test_hostile_files_end_as_by_the_processor(device: DeviceDecoder, shared: Path) -> None:
    files = [path for path in sorted((shared / "hostile").iterdir()) if path.is_file()]
    assert len(files) > 50
    read = 0
    for path in files:
        data = path.read_bytes()
        try:
            expected = to_network(data, "1024").pixels
        except ImageError as error:
            with pytest.raises(type(error)):
                to_network(data, "1024", device=device)
            continue
        found = to_network(data, "1024", device=device).pixels
        assert found.shape == expected.shape, path
        assert np.abs(found.astype(int) - expected).mean() <= 2, path
        read += 1
    assert read > 20


def test_a_pipeline_beside_a_gpu_decodes_there_if_asked(
    tiny: DeepGaze, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[DeviceDecoder] = []

    def make() -> DeviceDecoder:
        made.append(DeviceDecoder(DEVICE))
        return made[0]

    monkeypatch.setattr(gazecore.images.device, "DeviceDecoder", make)
    images = pa.Table.from_batches(list_images(str(photos)))
    rows = {}
    for decode, on_gpu in (("cpu", True), ("gpu", False), ("gpu", True)):
        run = make_run(tmp_path / f"{decode}-{on_gpu}", photos)
        pipeline = Pipeline(ScoringStage(tiny, run), ReadingConfig(decode=decode), on_gpu=on_gpu)
        rows[decode, on_gpu] = pipeline.process(images)[0]
        pipeline.close()
        assert len(made) == (decode == "gpu" and on_gpu)
    assert rows["cpu", True] == rows["gpu", False]
    for row, expected in zip(rows["gpu", True], rows["cpu", True], strict=True):
        assert row["status"] == "ok"
        assert row["information_bits"] == pytest.approx(expected["information_bits"], abs=0.05)
