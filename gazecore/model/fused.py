"""The wide part of the readout on a GPU, in one kernel: upsampling, activations, later layers.

In eager torch ten members of 64 channels move a gigabyte an image through memory. Here a value of
the first layer is interpolated, goes through the later layers and is forgotten within a
multiprocessor: a few megabytes are read, and two written.
"""

import torch
import triton
import triton.language as tl

from gazecore.model.readout import ReadoutConfig
from gazecore.model.spec import Activation

TILE = (8, 8, 4)
"""Rows and columns of cells that a program computes, near each other so that they share what is
interpolated, and its warps."""


def fits(config: ReadoutConfig) -> bool:
    """Whether the kernel can: four layers, of which the first two are powers of two from 16 on."""
    wide = config.widths[:2]
    return len(config.widths) == 4 and all(w >= 16 and w & (w - 1) == 0 for w in wide)


class Wide:
    """What `readout.pointwise` computes, to float32's rounding."""

    def __init__(
        self, later: list[tuple[torch.Tensor, torch.Tensor]], activation: Activation
    ) -> None:
        """See `Readout.later_layers`; of a readout that `fits`."""
        self._later = [values.contiguous() for layer in later for values in layer]
        self._is_softplus = activation == "softplus"

    def __call__(self, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Of (n, members, widths[0], h, w), from `first_layer`, (n, members, height, width)."""
        n, members, channels, h, w = x.shape
        # The channels of a position side by side, as a program reads them.
        x = x.permute(0, 1, 3, 4, 2).contiguous()
        found = x.new_empty(n, members, height, width)
        rows, columns, warps = TILE
        tiles = triton.cdiv(height, rows) * triton.cdiv(width, columns)
        second, third = self._later[0].shape[1], self._later[2].shape[1]
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            _wide[(tiles, n * members)](
                x, *self._later, found, members, h, w, height, width,
                h / height, w / width, channels, second, third, rows, columns, self._is_softplus,
                num_warps=warps,
            )  # fmt: skip
        return found


@triton.jit
def _activated(x, IS_SOFTPLUS: tl.constexpr):
    if IS_SOFTPLUS:
        return tl.maximum(x, 0.0) + tl.log(1 + tl.exp(-tl.abs(x)))  # whose exp cannot overflow
    return tl.where(x < 0, 0.0, x)


@triton.jit
def _source(cell, per_cell, positions):
    """Between which two positions a cell lies, and how near to the second; as torch's bilinear."""
    at = tl.maximum((cell + 0.5) * per_cell - 0.5, 0.0)
    before = tl.minimum(at.to(tl.int32), positions - 1)
    return before, tl.minimum(before + 1, positions - 1), at - before


@triton.jit
def _wide(
    x, weight_2, bias_2, weight_3, bias_3, weight_4, bias_4, found,
    members, h, w, height, width, per_row, per_column,
    FIRST: tl.constexpr, SECOND: tl.constexpr, THIRD: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, IS_SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """One tile of cells of one member's map of one image."""
    tiles_across = tl.cdiv(width, COLUMNS)
    tile, map_ = tl.program_id(0), tl.program_id(1).to(tl.int64)
    cell = tl.arange(0, ROWS * COLUMNS)
    row = tile // tiles_across * ROWS + cell // COLUMNS
    column = tile % tiles_across * COLUMNS + cell % COLUMNS
    above, below, down = _source(row, per_row, h)
    left, right, along = _source(column, per_column, w)

    channel = tl.arange(0, FIRST)
    x += map_ * h * w * FIRST + channel[None, :]
    upper = (
        tl.load(x + ((above * w + left) * FIRST)[:, None]) * (1 - along)[:, None]
        + tl.load(x + ((above * w + right) * FIRST)[:, None]) * along[:, None]
    )
    lower = (
        tl.load(x + ((below * w + left) * FIRST)[:, None]) * (1 - along)[:, None]
        + tl.load(x + ((below * w + right) * FIRST)[:, None]) * along[:, None]
    )
    values = _activated(upper * (1 - down)[:, None] + lower * down[:, None], IS_SOFTPLUS)

    member = map_ % members
    second = tl.arange(0, SECOND)
    weight = tl.load(
        weight_2 + member * SECOND * FIRST + second[None, :] * FIRST + channel[:, None]
    )
    bias = tl.load(bias_2 + member * SECOND + second)
    # Three products in TF32 have float32's digits.
    values = tl.dot(values, weight, input_precision="tf32x3") + bias[None, :]
    values = _activated(values, IS_SOFTPLUS)

    total = tl.zeros_like(down) + tl.load(bias_4 + member)
    for third in tl.static_range(THIRD):
        at = member * THIRD + third
        weight = tl.load(weight_3 + at * SECOND + second)
        value = tl.sum(values * weight[None, :], axis=1) + tl.load(bias_3 + at)
        total += _activated(value, IS_SOFTPLUS) * tl.load(weight_4 + at)
    is_inside = (row < height) & (column < width)
    tl.store(found + (map_ * height + row) * width + column, total, mask=is_inside)
