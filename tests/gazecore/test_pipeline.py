"""What bounds the work that runs ahead of the network."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import gazecore.images.device
import gazecore.images.read
import gazecore.shards.pipeline
from gazecore.images.listing import list_images
from gazecore.model.deepgaze import DeepGaze
from gazecore.scoring import ScoringStage
from gazecore.shards.pipeline import Pipeline, _Room
from gazecore.shards.stage import ReadingConfig
from tests.scoring import make_run


def test_no_more_is_held_than_there_is_room_for_but_one_that_is_larger() -> None:
    room, held, most = _Room(100), [0], [0]
    lock = threading.Lock()

    def hold(size: int) -> None:
        with room.hold(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0] if size <= 100 else 0)
                assert size <= 100 or held[0] == size
            threading.Event().wait(0.001)
            with lock:
                held[0] -= size

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(hold, [30, 60, 1, 500, 99] * 40))
    assert held[0] == 0
    assert 60 <= most[0] <= 100
    with pytest.raises(ValueError, match="a fault"), room.hold(100):
        raise ValueError("a fault")
    with room.hold(100):
        pass


def test_files_that_wait_to_be_decoded_have_little_room(
    tiny: DeepGaze, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten photographs two at most are fetched and not decoded."""
    images = pa.Table.from_batches(list_images(str(photos)))
    room = 2 * max(images["size"].to_pylist())
    monkeypatch.setattr(gazecore.shards.pipeline, "MAX_FETCHED", room)
    waiting, most = set[bytes](), [0]
    fetch, to_network = gazecore.images.read.fetch, gazecore.shards.pipeline.to_network

    def fetched(*how: Any) -> bytes:
        data = fetch(*how)
        waiting.add(data)
        most[0] = max(most[0], sum(map(len, waiting)))
        return data

    def decoded(data: bytes, *how: Any) -> Any:
        threading.Event().wait(0.01)
        waiting.discard(data)
        return to_network(data, *how)

    monkeypatch.setattr(gazecore.images.read, "fetch", fetched)
    monkeypatch.setattr(gazecore.shards.pipeline, "to_network", decoded)
    stage = ScoringStage(tiny, make_run(tmp_path / "run", photos))
    pipeline = Pipeline(stage, ReadingConfig(fetchers=10, decoders=1))
    outcomes, _ = pipeline.process(images)
    pipeline.close()
    assert {row["status"] for row in outcomes} == {"ok"}
    assert most[0] <= room


def test_those_that_wait_for_a_device_leave_the_processor_to_others(
    tiny: DeepGaze, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most, lock = [0], [0], threading.Lock()
    all_wait = threading.Barrier(4, timeout=30)

    class Device:
        def __call__(self, data: bytes, height: int, width: int) -> np.ndarray | None:
            all_wait.wait()  # four at once, although one decodes at a time
            return None

        def close(self) -> None:
            pass

    real = gazecore.images.decode._jpeg_pixels

    def counted(*how: Any) -> Any:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        threading.Event().wait(0.005)
        with lock:
            at_once[0] -= 1
        return real(*how)

    monkeypatch.setattr(gazecore.images.device, "DeviceDecoder", Device)
    monkeypatch.setattr(gazecore.images.decode, "_jpeg_pixels", counted)
    images = pa.Table.from_batches(list_images(str(photos)))[:8]
    stage = ScoringStage(tiny, make_run(tmp_path / "run", photos))
    pipeline = Pipeline(stage, ReadingConfig(fetchers=4, decoders=1, decode="gpu"), on_gpu=True)
    outcomes, _ = pipeline.process(images)
    pipeline.close()
    assert {row["status"] for row in outcomes} == {"ok"}
    assert most[0] == 1
