"""The readout's kernel: on a GPU where there is one, else by Triton's interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gazecore.model.frozen import FrozenReadout
from gazecore.model.readout import (
    ACTIVATIONS,
    Activation,
    Readout,
    ReadoutConfig,
    bilinear,
    pointwise,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def made(
    widths: tuple[int, ...], activation: Activation, members: int = 3, levels: int = 1
) -> Readout:
    torch.manual_seed(7)
    config = ReadoutConfig(24, widths, activation, members, levels)
    readout = Readout(config).requires_grad_(False)
    for bias in readout.biases:
        bias.normal_()
    readout.feature_mean, readout.feature_std = (
        torch.randn(24 * levels),
        torch.rand(24 * levels) + 0.5,
    )
    readout.log_blur += torch.randn(members)
    return readout.to(DEVICE)


@pytest.mark.parametrize(
    ("widths", "activation", "size", "grid"),
    [
        ((64, 32, 2, 1), "softplus", (4, 3), (32, 24)),
        ((16, 32, 2, 1), "softplus", (1, 5), (8, 40)),
        ((16, 16, 5, 1), "relu", (3, 2), (24, 16)),
        ((16, 32, 2, 1), "softplus", (2, 3), (13, 21)),  # neither a tile's nor a stride's multiple
    ],
)
def test_the_kernel_computes_what_the_plain_path_does(
    widths: tuple[int, ...], activation: Activation, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    fused = pytest.importorskip("gazecore.model.fused")
    readout = made(widths, activation)
    assert fused.fits(readout.config)
    x = torch.randn(2, 3, widths[0], *size, device=DEVICE) * 4
    up, across = (bilinear(*sides, x) for sides in zip(size, grid, strict=True))
    expected = pointwise(x, up, across, readout.later_layers(), ACTIVATIONS[activation])
    wide = fused.Wide(readout.later_layers(), activation)
    torch.testing.assert_close(wide(x, *grid), expected, rtol=0, atol=2e-5)
    # Values that exp of cannot hold, and what is no number, which stays in its map.
    x[0, 0], x[0, 1], x[1, 2] = 500, -500, torch.nan
    expected = pointwise(x, up, across, readout.later_layers(), ACTIVATIONS[activation])
    torch.testing.assert_close(wide(x, *grid), expected, rtol=1e-6, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("widths", [(8, 32, 2, 1), (48, 32, 2, 1), (16, 1), (16, 32, 2, 4, 1)])
def test_what_the_kernel_cannot_is_left_to_torch(widths: tuple[int, ...]) -> None:
    fused = pytest.importorskip("gazecore.model.fused")
    assert not fused.fits(ReadoutConfig(channels=24, widths=widths))
    check_frozen(made(widths, "softplus"))


@pytest.mark.parametrize(("members", "levels"), [(1, 1), (3, 1), (3, 2)])
def test_a_frozen_readout_is_the_readout(members: int, levels: int) -> None:
    check_frozen(made((64, 32, 2, 1), "softplus", members, levels))


def test_models_of_one_bundle_have_nothing_in_common() -> None:
    readout = made((16, 32, 2, 1), "softplus")
    features = [torch.randn(1, 24, 3, 5, device=DEVICE)]
    prior = torch.zeros(24, 40, device=DEVICE)
    one = FrozenReadout(readout, DEVICE)
    before = one(features, prior)
    FrozenReadout(readout, "cpu")
    for values in readout.to("cpu").state_dict().values():
        values.zero_()
    assert torch.equal(one(features, prior), before)


def test_a_blur_of_long_sides_is_not_kept() -> None:
    frozen = FrozenReadout(made((16, 32, 2, 1), "softplus"), DEVICE)
    assert frozen._blur(256) is frozen._blur(256)
    assert frozen._blur(257) is not frozen._blur(257)
    assert torch.equal(frozen._blur(257), frozen._blur(257))


def check_frozen(readout: Readout) -> None:
    sizes = [(3, 5), (2, 3)][: readout.config.levels]
    features = [torch.randn(2, 24, *size, device=DEVICE).bfloat16().float() for size in sizes]
    prior = torch.randn(24, 40, device=DEVICE).flatten().log_softmax(0).view(24, 40)
    expected = readout(features, prior)
    # TF32 has three digits; without a GPU, nothing is rounded otherwise.
    tolerance = 1e-2 if DEVICE == "cuda" else 0
    found = FrozenReadout(readout, DEVICE)(features, prior)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


COMPILE = """
import inspect, json, sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from gazecore.model import fused

names = list(inspect.signature(fused._wide.fn).parameters)
types = {name: "*fp32" for name in names[:8]} | {name: "i32" for name in names[8:13]}
types |= {name: "fp32" for name in names[13:15]} | {name: "constexpr" for name in names[15:]}
found = {}
for card in (80, 90):
    for first in (16, 64):
        values = dict(zip(names[15:], (first, 32, 2, *fused.TILE[:2], True)))
        source, options = ASTSource(fused._wide, types, values), {"num_warps": fused.TILE[2]}
        made = compile(source, target=GPUTarget("cuda", card, 32), options=options)
        found[f"{card} {first}"] = [made.metadata.shared, "mma" in made.asm["ptx"]]
print(json.dumps(found))
"""


def test_the_kernel_compiles_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    environment = dict(os.environ, TRITON_CACHE_DIR=str(tmp_path))
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"80 16", "80 64", "90 16", "90 64"}
    for shared, on_tensor_cores in found.values():
        assert shared <= 100 * 1024  # so that several tiles fit a multiprocessor
        assert on_tensor_cores
