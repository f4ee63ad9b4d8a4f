"""Runs and caches stay as they are, byte for byte, whatever becomes of the code that makes them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gazecore
from gazecore.features.cache import CacheSettings, begin_cache
from gazecore.features.extract import FeaturesConfig
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.record import TrainingRecord
from gazecore.model.tiny import TINY_SPEC
from gazecore.results.settings import ScoringOptions
from gazecore.scoring import Request
from gazecore.shards import local
from gazecore.storage import Location
from tests.golden import GOLDEN, INPUT, make_corpus, make_input

ARITHMETIC = "0688c5c59353baa73783b867e4f27c777621d4e98b769ee3573de0870d9a00e0"
"""Of the statistics below on the machine that made the golden files. Other processors round
otherwise, and there the files' values are compared instead of their bytes."""


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    make_input()
    monkeypatch.setattr(gazecore, "__version__", "0.1.0")


@pytest.fixture(scope="module")
def to_the_byte(tiny: DeepGaze) -> bool:
    rng, found = np.random.default_rng(0), hashlib.sha256()
    for height, width in [(336, 512), (512, 336), (512, 512), (176, 512)]:
        pixels = rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        found.update(repr(tiny.summarise(pixels, 4).of(0, height, width)).encode())
    written = pq.read_metadata(GOLDEN / "run" / "plan" / "part-00000.parquet").created_by
    return found.hexdigest() == ARITHMETIC and written.endswith(f" {pa.__version__}")


def files(folder: Path) -> Iterator[Path]:
    return (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())


def assert_same(found: Path, golden: Path, to_the_byte: bool) -> None:
    assert list(files(found)) == list(files(golden))
    for name in files(golden):
        if to_the_byte or name.suffix != ".parquet":
            assert (found / name).read_bytes() == (golden / name).read_bytes(), name
            continue
        one, other = pq.read_table(found / name), pq.read_table(golden / name)
        assert one.schema.equals(other.schema, check_metadata=True), name
        for column in one.column_names:
            values = [table[column].to_pylist() for table in (one, other)]
            assert_close(*values)


def assert_close(one: list, other: list) -> None:
    for a, b in zip(one, other, strict=True):
        if isinstance(a, bytes) and len(a) % 2 == 0:
            a, b = (np.frombuffer(x, "<f4" if len(a) == 1024 else "<f2").tolist() for x in (a, b))
        if isinstance(a, list) and a and isinstance(a[0], dict):  # peaks
            assert_close([[v for x in a for v in x.values()]], [[v for x in b for v in x.values()]])
        elif isinstance(a, float | list):
            assert a == pytest.approx(b, rel=1e-3, abs=1)  # a density is stored in whole steps
        else:
            assert a == b


def test_a_run_is_what_it_was(
    tmp_path: Path, tiny_file: str, to_the_byte: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingRecord, "trained_on", lambda self: "nothing")
    for module in ("scoring", "results.continued"):
        monkeypatch.setattr(f"gazecore.{module}.redact", lambda name: "tiny")
    out = tmp_path / "run"
    scoring = Request(INPUT, str(out), ScoringOptions(tiny_file, shard_size=3)).begin()
    assert local.run(scoring.run, scoring.config).ok == 7
    assert_same(out, GOLDEN / "run", to_the_byte)


def test_a_feature_cache_is_what_it_was(tmp_path: Path, to_the_byte: bool) -> None:
    settings = CacheSettings(TINY_SPEC, "1024", shard_size=2)
    cache, _ = begin_cache(Location(str(tmp_path)), make_corpus(), settings)
    local.run(cache, FeaturesConfig(str(tmp_path), 2, TINY_SPEC))
    assert_same(tmp_path, GOLDEN / "cache", to_the_byte)


def test_a_comparison_by_values_sees_what_differs() -> None:
    assert_close([1.0, [3, 4], "a", None], [1.0004, [3, 5], "a", None])
    for one, other in (([1.0], [3.1]), ([[3, 4]], [[3, 6]]), (["a"], ["b"]), ([None], [1.0])):
        with pytest.raises(AssertionError):
            assert_close(one, other)
