"""Losses between conditionals against numerical integration in one dimension."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import logistic, norm

from waveflow.distillation import (
    cross_entropy,
    gaussian_entropy,
    gaussian_kl,
    log_scale_penalty,
    logistic_entropy,
)
from waveflow.distributions import StandardNormal
from waveflow.errors import InputError

GAUSSIANS = [(0.0, 0.0, 0.0, 0.0), (0.3, -1.0, -0.5, 0.2), (0.1, 0.5, 0.0, -1.2), (-2.0, -3.0, 1.0, 1.0)]


def integral(f, location: float, scale: float) -> float:
    return quad(f, location - 40 * scale, location + 40 * scale, points=[location], limit=400)[0]


def wide(*numbers: float) -> list[torch.Tensor]:
    return [torch.tensor([number], dtype=torch.float64) for number in numbers]


@pytest.mark.parametrize("numbers", GAUSSIANS)
def test_gaussian_kl_is_the_integral(numbers):
    mean_q, log_std_q, mean_p, log_std_p = numbers
    q, p = norm(mean_q, math.exp(log_std_q)), norm(mean_p, math.exp(log_std_p))
    true = integral(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), mean_q, math.exp(log_std_q))
    assert gaussian_kl(*wide(*numbers)).item() == pytest.approx(true, abs=1e-8)


def test_the_floor_raises_peaked_scales():
    numbers = wide(0.01, -9.0, 0.0, -8.0)
    assert gaussian_kl(*numbers, floor=-7.0).item() == pytest.approx(
        gaussian_kl(*wide(0.01, -7.0, 0.0, -7.0)).item(), rel=1e-12
    )
    assert gaussian_kl(*numbers, floor=-20.0).item() == pytest.approx(gaussian_kl(*numbers).item())


def test_the_floor_counts_in_units_of_the_waveform():
    """A whitened residual of unit 0.01 with std e^-3 is a waveform with std e^-7.6."""
    unit = math.log(0.01)
    residual, waveform = wide(0.5, -3.0, 0.1, -1.0), wide(0.005, -3.0 + unit, 0.001, -1.0 + unit)
    ours = gaussian_kl(*residual, floor=-7.0, log_unit=torch.tensor([unit], dtype=torch.float64))
    assert ours.item() == pytest.approx(gaussian_kl(*waveform, floor=-7.0).item(), rel=1e-10)
    assert ours.item() != pytest.approx(gaussian_kl(*residual, floor=-7.0).item(), rel=0.01)
    # The true divergence knows no units.
    assert gaussian_kl(*residual, log_unit=unit).item() == pytest.approx(gaussian_kl(*waveform).item(), rel=1e-10)


def test_the_penalty_sees_scales_below_the_floor():
    log_std_q = torch.tensor([-12.0], requires_grad=True)
    zero = torch.zeros(1)
    (gradient,) = torch.autograd.grad(gaussian_kl(zero, log_std_q, zero, zero - 9, floor=-7.0).sum(), log_std_q)
    assert gradient.item() == 0
    penalty = log_scale_penalty(log_std_q, zero - 9)
    assert penalty.item() == 4 * 9
    assert torch.autograd.grad(penalty.sum(), log_std_q)[0].item() == -4 * 2 * 3


@pytest.mark.parametrize(("location", "log_scale"), [(0.0, 0.0), (1.0, -2.0), (-3.0, 1.5)])
def test_entropies_are_integrals(location, log_scale):
    scale = math.exp(log_scale)
    for family, entropy in ((logistic, logistic_entropy), (norm, gaussian_entropy)):
        density = family(location, scale)
        true = integral(lambda x, density=density: -density.pdf(x) * density.logpdf(x), location, scale)
        assert entropy(*wide(log_scale)).item() == pytest.approx(true, abs=1e-7)


def mixture_log_density(weights, locations, scales):
    def log_density(x):
        parts = (x.unsqueeze(-1) - locations) / scales
        logistics = -parts - 2 * torch.nn.functional.softplus(-parts) - scales.log()
        return torch.logsumexp(weights.log() + logistics, -1)

    return log_density


def test_cross_entropy_of_a_logistic_and_a_mixture_of_logistics_is_the_integral():
    """Three steps with parameters of their own."""
    location = torch.tensor([0.0, 0.5, -1.0], dtype=torch.float64)
    log_scale = torch.tensor([0.0, -1.5, -0.5], dtype=torch.float64)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    locations, scales = torch.tensor([-1.0, 0.8]).double(), torch.tensor([0.4, 0.2]).double()
    log_density = mixture_log_density(weights, locations, scales)
    draws = 400_000
    ours = cross_entropy(location, log_scale, log_density, draws, generator=torch.Generator().manual_seed(0))
    assert ours.shape == (3,)
    for t in range(3):
        q = logistic(location[t].item(), log_scale[t].exp().item())

        def weighted(x, q=q):
            p = sum(w * logistic(m, s).pdf(x) for w, m, s in zip(weights, locations, scales, strict=True))
            return -q.pdf(x) * math.log(max(float(p), 1e-300))

        true = integral(weighted, q.mean(), log_scale[t].exp().item())
        assert ours[t].item() == pytest.approx(true, abs=0.02)


def test_cross_entropy_of_gaussians_less_entropy_is_the_kl():
    mean_q, log_std_q, mean_p, log_std_p = wide(0.3, -0.5, -0.2, 0.1)

    def log_density(x):
        return torch.distributions.Normal(mean_p, log_std_p.exp()).log_prob(x)

    generator = torch.Generator().manual_seed(0)
    cross = cross_entropy(mean_q, log_std_q, log_density, 400_000, StandardNormal(), generator)
    kl = cross - gaussian_entropy(log_std_q)
    assert kl.item() == pytest.approx(gaussian_kl(mean_q, log_std_q, mean_p, log_std_p).item(), abs=5e-3)


def test_cross_entropy_has_the_gradient_of_the_closed_form():
    mean_q, log_std_q, mean_p, log_std_p = wide(0.3, -0.5, -0.2, 0.1)
    given = mean_q.requires_grad_(), log_std_q.requires_grad_(), mean_p.requires_grad_()

    def log_density(x):
        return torch.distributions.Normal(mean_p, log_std_p.exp()).log_prob(x)

    generator = torch.Generator().manual_seed(0)
    ours = cross_entropy(mean_q, log_std_q, log_density, 400_000, StandardNormal(), generator)
    ours = torch.autograd.grad((ours - gaussian_entropy(log_std_q)).sum(), given)
    true = torch.autograd.grad(gaussian_kl(mean_q, log_std_q, mean_p, log_std_p).sum(), given)
    for a, b in zip(ours, true, strict=True):
        assert a.item() == pytest.approx(b.item(), abs=5e-3)


def test_bad_input_is_refused():
    zero = torch.zeros(3)
    with pytest.raises(InputError, match="at least 1 draw, got 0"):
        cross_entropy(zero, zero, lambda x: x, 0)
    with pytest.raises(InputError, match=r"\(5, 3\) draws one by one, got \(5,\)"):
        cross_entropy(zero, zero, lambda x: x.sum(1), 5)
