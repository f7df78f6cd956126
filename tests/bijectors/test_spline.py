"""The rational-quadratic spline against a plain NumPy one, and at its edges."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import hmean

from waveflow.bijectors import RationalQuadraticSpline


def random(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_spline(x: float, params: np.ndarray, spline: RationalQuadraticSpline) -> float:
    """Equation (4) of arXiv:1906.04032, one number at a time."""
    k, bound, m = spline.bins, spline.bound, spline.min_bin
    if abs(x) > bound and not spline.circular:
        return x
    x = float(x)
    turns = np.floor((x + bound) / (2 * bound)) if spline.circular else 0
    x = x - 2 * bound * turns
    widths, heights = (2 * bound * (m / k + (1 - m) * softmax(p)) for p in (params[:k], params[k : 2 * k]))
    limit, bins = np.log(spline.max_ratio), heights / widths
    ratios = np.exp(limit * np.tanh(params[2 * k :] / limit))
    if spline.circular:
        slopes = [hmean([bins[j - 1], bins[j]]) * ratios[j] for j in range(k)]
        slopes.append(slopes[0])
    else:
        slopes = [1.0, *(hmean([bins[j], bins[j + 1]]) * ratios[j] for j in range(k - 1)), 1.0]
    xs, zs = (np.concatenate([[-bound], -bound + np.cumsum(part)]) for part in (widths, heights))
    i = min(int(np.searchsorted(xs, x, side="right")) - 1, k - 1)
    s, xi = heights[i] / widths[i], (x - xs[i]) / widths[i]
    top = heights[i] * (s * xi**2 + slopes[i] * xi * (1 - xi))
    return zs[i] + top / (s + (slopes[i + 1] + slopes[i] - 2 * s) * xi * (1 - xi)) + 2 * bound * turns


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("bins", [2, 8])
def test_is_the_spline_of_the_paper(circular, bins):
    spline = RationalQuadraticSpline(bins, bound=3.0, circular=circular)
    x, params = 3 * random(40, 5), 2 * random(40, spline.params, 5, seed=1)
    expected = [[plain_spline(x[b, d], params[b, :, d].numpy(), spline) for d in range(5)] for b in range(40)]
    torch.testing.assert_close(spline(x, params)[0], torch.tensor(expected), atol=1e-12, rtol=0)


@pytest.mark.parametrize("circular", [False, True])
def test_inverse_and_derivative_agree_with_autograd(circular):
    spline = RationalQuadraticSpline(circular=circular)
    x, params = (4 * random(300, 7)).requires_grad_(), 3 * random(300, spline.params, 7, seed=1)
    z, log_derivative = spline(x, params)
    rebuilt, back = spline.inverse(z, params)
    torch.testing.assert_close(rebuilt, x, atol=1e-9, rtol=0)
    torch.testing.assert_close(back, -log_derivative, atol=1e-9, rtol=0)
    (slope,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(slope.log(), log_derivative, atol=1e-9, rtol=0)


@pytest.mark.parametrize("circular", [False, True])
def test_zero_parameters_are_the_identity(circular):
    spline = RationalQuadraticSpline(bins=5, circular=circular)
    x = torch.linspace(-7, 7, 701)[None]
    for call in (spline, spline.inverse):
        y, log_derivative = call(x, torch.zeros(1, spline.params, 701))
        torch.testing.assert_close(y, x, atol=2e-6, rtol=0)
        torch.testing.assert_close(log_derivative, torch.zeros(1, 701), atol=2e-6, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("circular", [False, True])
def test_is_increasing_and_continuous_at_the_knots(scale, circular):
    spline = RationalQuadraticSpline(circular=circular)
    x = torch.linspace(-6, 6, 200_001, dtype=torch.float64)[None]
    params = (scale * random(1, spline.params, 1)).expand(-1, -1, x.shape[1])
    z, log_derivative = spline(x, params)
    steps = z.diff()
    assert (steps > 0).all()
    assert steps.max() <= 1.01 * 6e-5 * log_derivative.exp().max()  # no jump that the slope does not explain


def test_is_smooth_across_the_ends_of_the_circle():
    spline = RationalQuadraticSpline(circular=True, bound=torch.pi)
    params = 2 * random(1, spline.params, 1).expand(-1, -1, 2)
    z, log_derivative = spline(torch.pi * torch.tensor([[1 - 1e-9, -1 + 1e-9]], dtype=torch.float64), params)
    torch.testing.assert_close(z[:, 0] - z[:, 1], torch.tensor([2 * torch.pi], dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(log_derivative[:, 0], log_derivative[:, 1], atol=1e-5, rtol=0)
    turned, _ = spline(torch.tensor([[0.3, 0.3 + 6 * torch.pi]], dtype=torch.float64), params)
    torch.testing.assert_close(turned[:, 1] - turned[:, 0], torch.tensor([6 * torch.pi], dtype=torch.float64))


def test_slopes_and_bins_are_bounded():
    spline = RationalQuadraticSpline(bins=4, bound=1.0, min_bin=0.1, max_ratio=5.0)
    params = 1e4 * random(2000, spline.params, 1)
    x = torch.rand(2000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    _, log_derivative = spline(x, params)
    steepest = 0.925 / 0.025  # height over width of a bin
    assert log_derivative.max() <= np.log(2 * steepest) and log_derivative.isfinite().all()


def test_raw_scale_is_a_factor_of_the_parameters():
    gentle, plain = RationalQuadraticSpline(4, raw_scale=0.1), RationalQuadraticSpline(4)
    x, params = torch.randn(50, 3, dtype=torch.float64), 5 * torch.randn(50, plain.params, 3, dtype=torch.float64)
    assert not torch.allclose(gentle(x, params)[0], plain(x, params)[0])
    torch.testing.assert_close(gentle(x, params), plain(x, 0.1 * params))
    torch.testing.assert_close(gentle.inverse(x, params), plain.inverse(x, 0.1 * params))


@pytest.mark.parametrize("scale", [1.0, 10.0, 1000.0])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients_are_finite_far_outside_and_for_extreme_parameters(scale, direction):
    spline = RationalQuadraticSpline()
    x = torch.tensor([[-1e30, -1e4, -5.0, 0.0, 5.0, 5.0000005, 1e4, 1e30]] * 50, requires_grad=True)
    params = (scale * random(50, spline.params, 8)).float().requires_grad_()
    y, log_derivative = getattr(spline, direction)(x, params)
    first = torch.autograd.grad(y.sum() + log_derivative.sum(), (x, params), create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, params))
    assert all(t.isfinite().all() for t in (y, log_derivative, *first, *second))
    assert (y[:, 0] == -1e30).all() and (y[:, -1] == 1e30).all()
    assert (log_derivative[:, [0, 1, -2, -1]] == 0).all()


def test_second_order_gradients_agree_with_finite_differences():
    spline = RationalQuadraticSpline(bins=3)
    x, params = (1.5 * random(6, 2)).requires_grad_(), random(6, spline.params, 2, seed=1).requires_grad_()
    assert torch.autograd.gradgradcheck(spline, (x, params))
    assert torch.autograd.gradgradcheck(spline.inverse, (x, params))


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("circular", [False, True])
def test_float32_is_what_float64_gives_rounded(direction, circular):
    """Of a stack of splines nothing but rounding between them may be lost."""
    spline = RationalQuadraticSpline(circular=circular)
    x, params = 4 * random(5_000, 3).float(), random(5_000, spline.params, 3, seed=1).float()
    found, exact = (getattr(spline, direction)(x.to(dtype), params.to(dtype)) for dtype in (x.dtype, torch.float64))
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other.float())


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_round_trip_in_float32_loses_no_more_than_the_slope_asks(scale):
    spline = RationalQuadraticSpline()
    x, params = (3 * random(100_000, 1)).float(), (scale * random(100_000, spline.params, 1, seed=1)).float()
    z, log_derivative = spline(x, params)
    rebuilt, _ = spline.inverse(z, params)
    assert ((rebuilt - x).abs() * log_derivative.exp().clamp(max=1)).max() < 1e-6


def test_log_derivative_in_float32_is_near_that_in_float64():
    spline = RationalQuadraticSpline()
    x, params = 2 * random(20_000, 3), random(20_000, spline.params, 3, seed=1)
    single, double = spline(x.float(), params.float())[1], spline(x.float().double(), params.float().double())[1]
    assert (single - double).abs().mean() < 1e-5 and (single - double).abs().max() < 1e-2


def test_parameters_in_bfloat16_are_computed_with_in_float32():
    spline = RationalQuadraticSpline()
    x, params = random(100, 4).float(), random(100, spline.params, 4, seed=1).bfloat16()
    exact = spline(x, params.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, log_derivative = spline(x, params)
    assert torch.equal(z, exact[0]) and torch.equal(log_derivative, exact[1])
    assert spline(x.bfloat16(), params)[0].dtype == torch.bfloat16


def _rows(params: torch.Tensor) -> torch.Tensor:
    return params.movedim(1, -1).reshape(-1, params.shape[1])


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2), (0, 4)])
def test_takes_events_of_any_shape(shape):
    spline = RationalQuadraticSpline()
    x, params = random(*shape), random(shape[0], spline.params, *shape[1:])
    z, log_derivative = spline(x, params)
    assert z.shape == log_derivative.shape == shape
    numbers = [spline(x.reshape(-1, 1)[i : i + 1], p[None, :, None])[0] for i, p in enumerate(_rows(params))]
    torch.testing.assert_close(torch.cat([z.new_zeros(0, 1), *numbers]).reshape(shape), z)


@pytest.mark.parametrize(
    "wrong", [{"bins": 1}, {"bound": 0.0}, {"min_bin": 0.0}, {"min_bin": 1.0}, {"max_ratio": 1.0}, {"raw_scale": 0.0}]
)
def test_bad_settings_are_named(wrong):
    with pytest.raises(ValueError, match="RationalQuadraticSpline expects"):
        RationalQuadraticSpline(**wrong)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autograd_gives_the_derivative_at_the_ends_of_bins_too(direction, dtype):
    """Where rounding puts a number just beyond its bin, a clamp would cut the gradient."""
    spline = RationalQuadraticSpline(bins=8, bound=5.0)
    params = torch.randn(300, spline.params, 1, generator=torch.Generator().manual_seed(0), dtype=dtype)
    for end in (-5.0, 5.0):
        x = torch.full((300, 1), end, dtype=dtype, requires_grad=True)
        z, log_derivative = getattr(spline, direction)(x, params)
        (slope,) = torch.autograd.grad(z.sum(), x)
        torch.testing.assert_close(slope.log(), log_derivative, atol=1e-4, rtol=0)
