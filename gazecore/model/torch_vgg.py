"""VGG-19 in torch: the executor on GPUs, and the reference on CPUs."""

import numpy as np
import torch
import torch.nn.functional as F

from gazecore.model import vgg
from gazecore.model.pyramid import levels
from gazecore.model.spec import BackboneSpec


class TorchVGG:
    """VGG-19 in torch: the executor on GPUs (channels-last, bfloat16, compiled), and on CPUs the
    float32 reference."""

    def __init__(
        self, spec: BackboneSpec, weights: vgg.Weights, device: str, compiled: bool = False
    ) -> None:
        self.spec = spec
        self.device = torch.device(device)
        self._on_gpu = self.device.type != "cpu"
        self._dtype = torch.bfloat16 if self._on_gpu else torch.float32
        self._format = torch.channels_last if self._on_gpu else torch.contiguous_format
        self._weights = [
            (
                kernel.to(self.device, self._dtype, memory_format=self._format),
                bias.to(self.device, self._dtype),
            )
            for kernel, bias in weights
        ]
        self._mean = torch.tensor(spec.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.std, device=self.device).view(1, 3, 1, 1)
        # One compilation serves every size: images come in dozens of them.
        self._run = torch.compile(self._forward, dynamic=True) if compiled else self._forward

    def batch_size(self, height: int, width: int) -> int:
        """See `Backbone.batch_size`: on GPUs as many pixels as sixteen images of 512 x 512 have."""
        fit = max(1, min(16, 16 * 512 * 512 // (height * width))) if self._on_gpu else 1
        return 1 << fit.bit_length() - 1

    @torch.inference_mode()
    def features(self, images: np.ndarray) -> list[torch.Tensor]:
        """See `Backbone.features`."""
        pixels = torch.from_numpy(images)
        if self._on_gpu:
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        return self._run(pixels)

    def _forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        x = (pixels.permute(0, 3, 1, 2).float() * self.spec.scale - self._mean) / self._std
        return [self._level(seen) for seen in levels(x, self.spec.pyramid)]

    def _level(self, x: torch.Tensor) -> torch.Tensor:
        x = x.to(self._dtype, memory_format=self._format)
        taps: dict[str, torch.Tensor] = {}
        for name, (kernel, bias) in zip(vgg.NAMES, self._weights, strict=True):
            if name.endswith("_1") and name != "1_1":
                x = F.max_pool2d(x, 2)
            x = F.conv2d(x, kernel, bias, padding=1)
            if f"conv{name}" in self.spec.taps:
                taps[f"conv{name}"] = x
            x = F.relu(x)
            if f"relu{name}" in self.spec.taps:
                taps[f"relu{name}"] = x
            if len(taps) == len(self.spec.taps):
                break
        return torch.cat([taps[tap] for tap in self.spec.taps], dim=1).float()
