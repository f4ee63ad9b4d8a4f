"""DeepGaze II as the paper describes it, in plain float32 torch: the slow truth that tests and
benchmarks compare with. Nothing of the product's model code is used but the bundle's numbers.

Kümmerer, Wallis & Bethge 2016, arXiv 1610.01563: VGG-19 features of five conv5 layers are upsampled
to a quarter of the display's resolution (those of a pyramid's smaller images, first, to where those
of the largest are); four 1x1 convolutions read them; their output is blurred,
the centre bias is added, and a softmax over all positions makes it a density.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from scipy.ndimage import gaussian_filter

from gazecore.model.bundle import ModelBundle
from gazecore.model.readout import Readout
from gazecore.model.vgg import Weights

TAP_INDICES = {"conv5_1": 28, "relu5_1": 29, "relu5_2": 31, "conv5_3": 32, "relu5_4": 35}


def official_vgg(weights: Weights) -> torch.nn.Sequential:
    """torchvision's VGG-19 with these convolutions, its ReLUs not in place."""
    layers = torchvision.models.vgg19(weights=None).features.eval().requires_grad_(False)
    convolutions = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d)]
    for layer, (kernel, bias) in zip(convolutions, weights, strict=True):
        layer.weight.data, layer.bias.data = kernel, bias
    for layer in layers:
        if isinstance(layer, torch.nn.ReLU):
            layer.inplace = False
    return layers


@torch.inference_mode()
def reference_log_density(
    pixels: np.ndarray, layers: torch.nn.Sequential, bundle: ModelBundle
) -> np.ndarray:
    """Log density of one image on the readout's grid, float64 (h / 2, w / 2).

    Args:
        pixels: uint8 RGB (h, w, 3), the network's input.
        layers: from `official_vgg`.
        bundle: whose readout and centre bias to use.
    """
    spec, readout = bundle.backbone, bundle.readout
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() * spec.scale
    x = (x - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    levels = []
    for part in spec.pyramid:
        size = [max(16, round(side * part / 16) * 16) for side in pixels.shape[:2]]
        seen = F.interpolate(x, size=size, mode="bilinear", antialias=True)
        taps = {}
        for index, layer in enumerate(layers[: max(TAP_INDICES.values()) + 1]):
            seen = layer(seen)
            if index in TAP_INDICES.values():
                taps[index] = seen
        levels.append(torch.cat([taps[TAP_INDICES[tap]] for tap in spec.taps], dim=1))
    side = levels[0].shape[2:]
    features = torch.cat([F.interpolate(level, side, mode="bilinear") for level in levels], dim=1)
    features = (features - readout.feature_mean[:, None, None]) / readout.feature_std[:, None, None]
    grid = (pixels.shape[0] // 2, pixels.shape[1] // 2)
    features = F.interpolate(features, size=grid, mode="bilinear", align_corners=False)
    prior = F.interpolate(
        bundle.centerbias[None, None], size=grid, mode="bicubic", align_corners=False
    )[0, 0].double()
    prior = prior - torch.logsumexp(prior.flatten(), 0)
    activation = getattr(F, readout.config.activation)
    members = []
    for member in range(readout.config.members):
        x = features
        for layer_number, (weights, biases) in enumerate(
            zip(readout.weights, readout.biases, strict=True)
        ):
            if layer_number:
                x = activation(x)
            x = F.conv2d(x, weights[member][:, :, None, None], biases[member])
        sigma = float(readout.log_blur[member].exp())
        smooth = gaussian_filter(
            x[0, 0].numpy().astype(np.float64), sigma, mode="nearest", radius=math.floor(4 * sigma)
        )
        log_density = torch.from_numpy(smooth) + readout.centerbias_weight[member] * prior
        members.append(log_density - torch.logsumexp(log_density.flatten(), 0))
    mixed = torch.logsumexp(torch.stack(members), dim=0) - math.log(len(members))
    return mixed.numpy()


def plain_readout(
    readout: Readout, features: Sequence[torch.Tensor], prior: torch.Tensor
) -> torch.Tensor:
    """`Readout.forward` in torch's own convolutions, interpolation and softplus, the features of
    all levels of the pyramid brought to the largest level's positions before the first layer.

    The blur's widths must be those that a readout starts with.
    """
    members = readout.config.members
    std, mean = (x[:, None, None] for x in (readout.feature_std, readout.feature_mean))
    side = features[0].shape[2:]
    same = [F.interpolate(x, size=side, mode="bilinear", align_corners=False) for x in features]
    x = (torch.cat(same, dim=1) - mean) / std
    for number, (weight, bias) in enumerate(zip(readout.weights, readout.biases, strict=True)):
        kernel, groups = weight.flatten(0, 1)[:, :, None, None], members if number else 1
        x = F.conv2d(F.softplus(x) if number else x, kernel, bias.flatten(), groups=groups)
        if number == 0:
            x = F.interpolate(x, size=prior.shape, mode="bilinear", align_corners=False)
    offsets = torch.arange(-8, 9)
    kernels = torch.exp(-0.5 * (offsets / readout.log_blur.exp()[:, None]) ** 2)
    kernels = (kernels / kernels.sum(dim=1, keepdim=True))[:, None]
    x = F.pad(x, (8, 8, 8, 8), mode="replicate")
    x = F.conv2d(x, kernels[:, :, None], groups=members)
    x = F.conv2d(x, kernels[..., None], groups=members)
    x = x + readout.centerbias_weight[:, None, None] * prior
    return x.flatten(2).log_softmax(2).view_as(x)
