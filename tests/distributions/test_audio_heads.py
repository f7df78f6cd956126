"""The distributions of a sample of sound: densities that integrate to one, tails that stay finite."""

import math

import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal, SigmoidTransform, TransformedDistribution, Uniform
from torch.distributions.transforms import AffineTransform

from waveflow.audio.quantise import EvenSteps, MuLaw
from waveflow.bijectors import MixtureOfLogistics, Standardise
from waveflow.distributions import Categorical, DiscretisedMixtureOfLogistics, StandardLogistic, StandardNormal


def density(base, univariate, x, params):
    """log p at places x (N,) for one set of parameters (P,)."""
    z, log_derivative = univariate(x[:, None], params.expand(len(x), -1)[..., None])
    return base.log_prob(z) + log_derivative[:, 0]


def params_of(components, spread=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(3 * components, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("components", [1, 4, 10])
def test_mixture_integrates_to_one_and_is_the_mixture(components):
    univariate, params = MixtureOfLogistics(components), params_of(components)
    x = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
    log_p = density(StandardLogistic(), univariate, x, params)
    assert abs(torch.trapezoid(log_p.exp(), x) - 1) < 1e-6
    log_weights, means, log_scales = (t[0, :, 0] for t in univariate.mixture(params[None, :, None]))
    unit = TransformedDistribution(Uniform(0.0, 1.0).expand((components,)), SigmoidTransform().inv)
    logistic = TransformedDistribution(unit, AffineTransform(means, log_scales.exp()))
    some = x[100_000:140_000:500]  # not so far out that torch's own tails break
    expected = (log_weights + torch.stack([logistic.log_prob(v) for v in some])).logsumexp(1)
    torch.testing.assert_close(log_p[100_000:140_000:500], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixture_has_finite_tails_with_gradients(dtype):
    univariate = MixtureOfLogistics(3)
    for place in (-1e4, -30.0, 0.0, 30.0, 1e4):
        params = (params_of(3).to(dtype) - torch.tensor([0, 0, 0, 0, 0, 0, 6, 6, 6])).requires_grad_()
        x = torch.tensor([place], dtype=dtype, requires_grad=True)
        log_p = density(StandardLogistic(), univariate, x, params)
        log_p.sum().backward()
        assert log_p.isfinite().all() and params.grad.isfinite().all() and x.grad.isfinite().all()
        assert abs(place) < 1 or params.grad.abs().max() > 1e-3  # a sample far out still pulls


def test_mixture_is_floored():
    univariate = MixtureOfLogistics(2)
    params = torch.tensor([0.0, 0, 0, 0, -50.0, 1.0])[None, :, None]
    assert univariate.mixture(params)[2][0, :, 0].tolist() == pytest.approx([-9.0, 1.0 - math.log(2)])


def test_mixture_inverse_is_its_quantile():
    univariate, params = MixtureOfLogistics(5), params_of(5, 2.0)[None, :, None].expand(400, -1, 1)
    z = StandardLogistic().sample((400, 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, log_derivative = univariate.inverse(z, params)
    again, forward = univariate(x, params)
    torch.testing.assert_close(again, z, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(log_derivative, -forward)


def test_gaussian_is_torchs_and_floored():
    x = torch.linspace(-1, 1, 50, dtype=torch.float64)
    params = torch.tensor([0.2, -1.5], dtype=torch.float64)
    log_p = density(StandardNormal(), Standardise("floored"), x, params)
    torch.testing.assert_close(log_p, Normal(0.2, math.exp(-1.5)).log_prob(x))
    floored = density(StandardNormal(), Standardise("floored"), x, torch.tensor([0.2, -40.0]).double())
    torch.testing.assert_close(floored, Normal(0.2, math.exp(-9.0)).log_prob(x))


@pytest.mark.parametrize("scale", [0.0, -4.0, 4.0, -30.0])
def test_discretised_mixture_of_65536_values_sums_to_one(scale):
    head = DiscretisedMixtureOfLogistics(10, 65536)
    params = params_of(10).float()
    params[20:] += scale
    log_p = head.log_prob(torch.arange(65536.0)[:, None], params.expand(65536, -1)[..., None])[:, 0]
    assert log_p.isfinite().all()
    assert abs(log_p.double().exp().sum() - 1) < 1e-3
    exact = head.log_prob(torch.arange(65536.0)[:, None], params.double().expand(65536, -1)[..., None])[:, 0]
    assert abs(exact.exp().sum() - 1) < 1e-9


def test_discretised_mixture_has_gradients_in_its_far_tail():
    head = DiscretisedMixtureOfLogistics(1, 65536)
    params = torch.tensor([0.0, -0.9, -20.0]).reshape(1, 3, 1).requires_grad_()
    log_p = head.log_prob(torch.tensor([[65000.0]]), params)
    log_p.sum().backward()
    assert log_p.item() < -1000 and params.grad.isfinite().all() and params.grad[0, 1].abs() > 1


@pytest.mark.parametrize(
    ("quantiser", "head"),
    [(EvenSteps(65536), DiscretisedMixtureOfLogistics(4, 65536)), (MuLaw(256), Categorical(256))],
)
def test_densities_of_cells_integrate_to_one_on_the_range(quantiser, head):
    params = torch.randn(head.params, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = 65535 * 32  # so that no cell of the even steps begins between two of them
    x = (torch.arange(points, dtype=torch.float64) + 0.5) * (2 / points) - 1
    codes = quantiser.encode(x)
    table = torch.arange(head.values, dtype=torch.float64)
    log_mass = head.log_prob(table[:, None], params.expand(head.values, -1)[..., None])[:, 0]
    log_p = (log_mass - quantiser.log_width(table))[codes]
    assert abs(2 * log_p.exp().mean() - 1) < 1e-3


def test_categorical_is_torchs():
    logits = torch.randn(256, dtype=torch.float64)
    x = torch.arange(256)
    log_p = Categorical(256).log_prob(x[:, None], logits.expand(256, -1)[..., None])[:, 0]
    torch.testing.assert_close(log_p, TorchCategorical(logits=logits).log_prob(x))


def test_no_component_is_refused():
    with pytest.raises(ValueError, match="at least 1 component, got 0"):
        MixtureOfLogistics(0)
