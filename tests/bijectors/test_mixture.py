"""The mixture of logistics against SciPy, in its tails, and through its inverse."""

import numpy as np
import pytest
import torch
from scipy.special import logit, softmax
from scipy.stats import logistic

from waveflow.bijectors import MixtureOfLogisticsCDF


def random(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_is_the_logit_of_a_mixture():
    mixture = MixtureOfLogisticsCDF(components=4)
    x, params = random(30, 2), random(30, mixture.params, 2, seed=1)
    z, log_derivative = mixture(x, params)
    logits, means, raw_scales = params[:, :12].numpy().reshape(30, 3, 4, 2).transpose(1, 0, 2, 3)
    weights = softmax(logits, 1)
    at = x.numpy()[:, None], means + np.array([-0.75, -0.25, 0.25, 0.75])[:, None], np.exp(5 * np.tanh(raw_scales / 5))
    cdf, density = ((weights * of(*at)).sum(1) for of in (logistic.cdf, logistic.pdf))
    log_a = 5 * np.tanh(params[:, 13].numpy() / 5)
    np.testing.assert_allclose(z.numpy(), logit(cdf) * np.exp(log_a) + params[:, 12].numpy(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        log_derivative.numpy(), np.log(density) - np.log(cdf * (1 - cdf)) + log_a, rtol=1e-9, atol=1e-9
    )


def test_at_zero_it_is_nearly_the_identity_and_its_components_are_taught_apart():
    mixture = MixtureOfLogisticsCDF(components=8)
    x = torch.linspace(-30, 30, 301, dtype=torch.float64)[:, None]
    params = torch.zeros(301, mixture.params, 1, dtype=torch.float64, requires_grad=True)
    z, log_derivative = mixture(x, params)
    assert (z - x).abs().max() < 0.17 and log_derivative.abs().max() < 0.15
    (gradient,) = torch.autograd.grad((log_derivative - z.square() / 2).sum(), params)
    assert gradient.sum((0, 2))[8:16].diff().abs().min() > 1e-3


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_tails_are_straight_and_keep_their_slope_in_float32(side):
    mixture = MixtureOfLogisticsCDF(components=3)
    params = random(1, mixture.params, 1).float()
    params[:, -1] = 0.0
    x = side * torch.tensor([[1e3], [1e4], [1e8], [1e30]])
    z, log_derivative = mixture(x, params.expand(4, -1, -1))
    widest = (5 * torch.tanh(params[0, 6:9] / 5)).max()
    torch.testing.assert_close(log_derivative, -widest.expand(4, 1), atol=1e-3, rtol=0)
    torch.testing.assert_close(z[2:] / x[2:], (-widest).exp().expand(2, 1), atol=0, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-10)])
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_inverse_is_exact_where_the_slope_lets_it(dtype, tolerance, spread):
    mixture = MixtureOfLogisticsCDF()
    x, params = spread * random(5000, 2), spread * random(5000, mixture.params, 2, seed=1)
    x, params = x.to(dtype), params.to(dtype)
    z, log_derivative = mixture(x, params)
    rebuilt, back = mixture.inverse(z, params)
    # what rounding z, and x itself, does to x
    allowed = tolerance * (1 + x.abs() + (z.abs() + params.abs().amax(1)) * (-log_derivative).exp())
    assert ((rebuilt - x).abs() <= allowed).all()
    assert (mixture(rebuilt, params)[0] - z).abs().le(tolerance * (1 + z.abs() + log_derivative.exp())).all()
    gentle = log_derivative.abs() < 1
    torch.testing.assert_close(back[gentle], -log_derivative[gentle], atol=100 * tolerance, rtol=0)


def test_inverse_reaches_tails_and_extreme_parameters():
    mixture = MixtureOfLogisticsCDF(components=5)
    z = torch.tensor([[-1e6], [-100.0], [0.0], [100.0], [1e6]], dtype=torch.float64).repeat(200, 1)
    params = (30 * random(1000, mixture.params, 1)).requires_grad_()
    x, log_derivative = mixture.inverse(z, params)
    gradient = torch.autograd.grad(x.sum() + log_derivative.sum(), params)[0]
    assert x.isfinite().all() and log_derivative.isfinite().all() and gradient.isfinite().all()
    gap = (mixture(x, params)[0] - z).abs()
    assert (gap <= 1e-9 * (1 + z.abs()) + 1e-12 * x.abs() * (-log_derivative).exp()).all()


def test_is_increasing():
    mixture = MixtureOfLogisticsCDF()
    x = torch.linspace(-20, 20, 20_001, dtype=torch.float64)[None]
    z, _ = mixture(x, (3 * random(1, mixture.params, 1)).expand(-1, -1, x.shape[1]))
    assert (z.diff() > 0).all()


def test_parameters_in_bfloat16_are_computed_with_in_float32():
    mixture = MixtureOfLogisticsCDF()
    x, params = random(50, 3).float(), random(50, mixture.params, 3, seed=1).bfloat16()
    exact = mixture(x, params.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, log_derivative = mixture(x, params)
        rebuilt, _ = mixture.inverse(z, params)
    assert torch.equal(z, exact[0]) and torch.equal(log_derivative, exact[1])
    assert ((rebuilt - x).abs() * log_derivative.exp().clamp(max=1)).max() < 1e-4


@pytest.mark.parametrize("event", [(), (2,), (2, 3)])
def test_takes_events_of_any_shape(event):
    mixture = MixtureOfLogisticsCDF(components=2)
    x, params = random(4, *event), random(4, mixture.params, *event)
    for call in (mixture, mixture.inverse):
        y, log_derivative = call(x, params)
        assert y.shape == log_derivative.shape == x.shape


def test_no_component_is_refused():
    with pytest.raises(ValueError, match="at least 1 component, got 0"):
        MixtureOfLogisticsCDF(0)
