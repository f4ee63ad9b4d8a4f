import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from gazecore.errors import BundleError
from gazecore.model.readout import Readout, ReadoutConfig, blur, mix, softplus
from tests.reference import plain_readout

SIZES = [(5, 7), (3, 4), (1, 2)]
"""Positions of the levels of a pyramid."""


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_first_layer_before_the_upsampling_equals_the_papers_order(levels: int) -> None:
    torch.manual_seed(0)
    config = ReadoutConfig(channels=24, members=3, levels=levels)
    readout = Readout(config).double().requires_grad_(False)
    readout.feature_mean = torch.randn(levels * 24).double()
    readout.feature_std = torch.rand(levels * 24).double() + 0.5
    features = [torch.randn(2, 24, *size).double() for size in SIZES[:levels]]
    prior = torch.randn(40, 56).double().flatten().log_softmax(0).view(40, 56)
    found = readout(features, prior)

    large = torch.cat([scaled(level, SIZES[0]) for level in features], dim=1)
    large = scaled(large, (40, 56))
    large = (large - readout.feature_mean[:, None, None]) / readout.feature_std[:, None, None]
    for member in range(3):
        x = large
        for number, (weight, bias) in enumerate(zip(readout.weights, readout.biases, strict=True)):
            x = F.softplus(x) if number else x
            x = torch.einsum("oc,nchw->nohw", weight[member], x) + bias[member][:, None, None]
        sigma = float(readout.log_blur[member].exp())
        for image in range(2):
            smooth = gaussian_filter(
                x[image, 0].numpy(), sigma, mode="nearest", radius=math.floor(4 * sigma)
            )
            expected = torch.from_numpy(smooth) + readout.centerbias_weight[member] * prior
            expected = expected - torch.logsumexp(expected.flatten(), 0)
            torch.testing.assert_close(found[image, member], expected, rtol=0, atol=1e-9)


def scaled(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
def test_densities_and_gradients_equal_those_of_the_plain_path(
    dtype: torch.dtype, tolerance: float, levels: int
) -> None:
    torch.manual_seed(5)
    readout = Readout(ReadoutConfig(channels=64, members=2, levels=levels)).to(dtype)
    readout.feature_mean = torch.randn(64 * levels).to(dtype)
    readout.feature_std = torch.full((64 * levels,), 2.0).to(dtype)
    features = [torch.randn(2, 64, 10 >> i, 7 >> i).to(dtype) for i in range(levels)]
    prior = torch.randn(80, 56).to(dtype).flatten().log_softmax(0).view(80, 56)
    # Each member's own density, and their mixture.
    found, expected = readout(features, prior), plain_readout(readout, features, prior)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance / 10)
    at = (torch.arange(2)[:, None], torch.randint(80, (2, 50)), torch.randint(56, (2, 50)))
    parameters = list(readout.parameters())
    ours = torch.autograd.grad(-mix(found)[at].mean(), parameters)
    plain = torch.autograd.grad(-mix(expected)[at].mean(), parameters)
    for one, other in zip(ours, plain, strict=True):
        # The last bias alone has no gradient but rounding's.
        scale = max(float(other.abs().max()), 1e-3)
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=tolerance)


def test_softplus_is_torchs() -> None:
    x = torch.linspace(-120, 120, 4001)
    torch.testing.assert_close(softplus(x), F.softplus(x), rtol=3e-7, atol=1.5e-7)
    assert torch.isnan(softplus(torch.tensor([math.nan]))).all()
    inputs = torch.linspace(-30, 90, 25, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(softplus, inputs)


def test_mirrored_features_give_the_mirrored_density() -> None:
    # So mirrored copies of cached features would teach nothing that the originals do not.
    torch.manual_seed(6)
    readout = Readout(ReadoutConfig(channels=4)).requires_grad_(False)
    features, prior = torch.randn(1, 4, 5, 6), torch.zeros(40, 48)
    mirrored = readout([features.flip(3)], prior)
    torch.testing.assert_close(mirrored, readout([features], prior).flip(3), rtol=0, atol=1e-5)


def test_members_do_not_see_each_other() -> None:
    torch.manual_seed(1)
    readout = Readout(ReadoutConfig(channels=4, members=2))
    features, prior = [torch.randn(1, 4, 3, 3)], torch.zeros(24, 24)
    before = readout(features, prior).detach().clone()
    with torch.no_grad():
        for weight in readout.weights:
            weight[1] += 1
        readout.log_blur[1] += 1
    after = readout(features, prior)
    torch.testing.assert_close(after[:, 0], before[:, 0], rtol=0, atol=1e-6)
    assert not torch.allclose(after[:, 1], before[:, 1])


def test_the_mixture_averages_probabilities() -> None:
    members = torch.tensor([[0.2, 0.8], [0.6, 0.4]]).log().view(1, 2, 1, 2)
    torch.testing.assert_close(mix(members).exp(), torch.tensor([[[0.4, 0.6]]]))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7])
def test_blur_equals_scipys(sigma: float) -> None:
    rng = np.random.default_rng(2)
    maps = rng.normal(size=(1, 2, 9, 30))
    found = blur(torch.from_numpy(maps), torch.tensor([sigma, 2 * sigma], dtype=torch.float64))
    for channel, width in enumerate((sigma, 2 * sigma)):
        expected = gaussian_filter(
            maps[0, channel], width, mode="nearest", radius=math.floor(4 * width)
        )
        np.testing.assert_allclose(found[0, channel], expected, atol=1e-12)


def test_every_parameter_learns() -> None:
    torch.manual_seed(4)
    readout = Readout(ReadoutConfig(channels=6, levels=2)).double()
    prior = torch.randn(16, 16).double().flatten().log_softmax(0).view(16, 16)
    features = [torch.randn(1, 6, *size).double() for size in ((2, 2), (1, 1))]
    readout(features, prior)[0, 0, 3, 5].backward()
    for name, parameter in readout.named_parameters():
        # A softmax does not see a constant, so the last bias alone has no gradient.
        is_last_bias = name == "biases.3"
        assert parameter.grad is not None
        assert bool(parameter.grad.abs().max() > 1e-12) != is_last_bias, name


@pytest.mark.parametrize(
    "wrong",
    [
        {"activation": "tanh"}, {"widths": ()}, {"widths": (4, 2)}, {"widths": (0, 1)},
        {"members": 0}, {"channels": 0}, {"levels": 0},
    ],
)  # fmt: skip
def test_impossible_readouts_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BundleError, match=next(iter(wrong))):
        ReadoutConfig(**{"channels": 4, **wrong})  # type: ignore[arg-type]
