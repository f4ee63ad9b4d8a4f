"""VGG-19 in ncnn: the executor on CPUs."""

import itertools
import os
import tempfile

import numpy as np
import torch

from gazecore.memory import give_back
from gazecore.model import vgg
from gazecore.model.pyramid import levels
from gazecore.model.spec import BackboneSpec
from gazecore.model.vgg import normalise


class NcnnVGG:
    """VGG-19 in ncnn: the executor on CPUs."""

    def __init__(self, spec: BackboneSpec, weights: vgg.Weights, threads: int) -> None:
        # Its threads would spin while they wait for each other: on a busy machine half of the time.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import ncnn

        self.spec = spec
        self._ncnn = ncnn
        self._net = net = ncnn.Net()
        net.opt.num_threads = threads
        # float32 throughout: half precision storage would show in the third digit.
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        # Pools of our own, which take a free block of up to twice the size and are emptied when the
        # image size changes: ncnn's default keeps blocks of every size that it has seen, and taking
        # any larger block leaves the large layers without theirs.
        self._pools = [(ncnn.PoolAllocator(), ncnn.PoolAllocator()) for _ in spec.pyramid]
        for pool in itertools.chain(*self._pools):
            pool.set_size_compare_ratio(0.5)
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

    def batch_size(self, height: int, width: int) -> int:
        """See `Backbone.batch_size`."""
        return 1

    def features(self, images: np.ndarray) -> list[torch.Tensor]:
        """See `Backbone.features`."""
        if images.shape[1:] != self._shape:
            self._shape = images.shape[1:]
            for pool in itertools.chain(*self._pools):
                pool.clear()
            give_back()
        planes = np.ascontiguousarray(normalise(images, self.spec).transpose(0, 3, 1, 2))
        return [
            torch.stack([self._one(image, level) for image in seen.numpy()])
            for level, seen in enumerate(levels(torch.from_numpy(planes), self.spec.pyramid))
        ]

    def _one(self, planes: np.ndarray, level: int) -> torch.Tensor:
        """Features of one image (3, h, w) at a level, whose allocators hold blocks of its size."""
        blobs, workspace = self._pools[level]
        extractor = self._net.create_extractor()
        extractor.set_blob_allocator(blobs)
        extractor.set_workspace_allocator(workspace)
        # A Mat only points at the array that it is made of, which has a name here.
        extractor.input("data", self._ncnn.Mat(planes).clone())
        taps = []
        for tap in self.spec.taps:
            failed, blob = extractor.extract(f"tap_{tap}")
            if failed:  # the graph is right, so it is memory that was not there
                raise MemoryError(f"ncnn cannot compute {tap} of {planes.shape}")
            taps.append(np.asarray(blob))
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
