"""Langevin dynamics against stationary variances in closed form and conjugate posteriors."""

import math

import pytest
import torch
from scipy import stats

from waveflow.errors import InputError
from waveflow.sampling import (
    MALA,
    Langevin,
    State,
    StochasticGradientLangevin,
    minibatch_gradient,
    polynomial_decay,
    run_chains,
    tune,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def standard_normal(x):
    return -0.5 * x.square().sum(1)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 2.0])
def test_unadjusted_langevin_has_the_variance_it_must_have(epsilon):
    chains = run_chains(Langevin(standard_normal, epsilon), torch.zeros(20_000, 1), 1, warmup=80, generator=seeded())
    assert stats.kstest(chains.pooled()[:, 0].numpy(), stats.norm(scale=(1 - epsilon / 4) ** -0.5).cdf).pvalue > 1e-2
    torch.testing.assert_close(chains.log_prob[:, 0], standard_normal(chains.pooled()))


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 5.0])
def test_mala_is_exact_at_any_step_size(epsilon):
    start = torch.full((20_000, 1), 0.7)
    chains = run_chains(MALA(standard_normal, epsilon), start, 1, warmup=60, generator=seeded())
    assert stats.kstest(chains.pooled()[:, 0].numpy(), "norm").pvalue > 1e-2
    assert chains.acceptance.mean() < 0.99


def test_mala_on_a_target_whose_gradient_is_not_linear():
    def gumbel(x):
        return (-x - torch.exp(-x)).sum(1)

    chains = run_chains(MALA(gumbel, 1.5), torch.zeros(10_000, 1), 1, warmup=100, generator=seeded())
    assert stats.kstest(chains.pooled()[:, 0].numpy(), "gumbel_r").pvalue > 1e-2


@pytest.mark.filterwarnings("error")
def test_the_gradient_outside_the_support_does_not_matter():
    def gamma(x):
        return torch.where(x > 0, 2 * x.sqrt().log() - x, -math.inf)[:, 0]

    chains = run_chains(MALA(gamma, 1.0), torch.ones(5000, 1), 1, warmup=100, generator=seeded())
    assert stats.kstest(chains.pooled()[:, 0].numpy(), stats.gamma(2).cdf).pvalue > 1e-2


def test_mala_accepts_by_the_ratio_of_its_transition_densities():
    target, epsilon = torch.distributions.Gumbel(0.0, 1.0), 1.5

    def log_target(x):
        return target.log_prob(x)[:, 0]

    start = torch.linspace(-1.5, 3.0, 10, dtype=torch.float64).repeat_interleave(4000)[:, None]
    kernel = MALA(log_target, epsilon)
    after = kernel.step(kernel.prepare(State(start)), seeded())

    def mean(x):
        return x + epsilon / 2 * (torch.exp(-x) - 1)

    proposed = mean(start) + math.sqrt(epsilon) * torch.randn(start.shape, generator=seeded(), dtype=torch.float64)
    std = math.sqrt(epsilon)
    ratio = target.log_prob(proposed) - target.log_prob(start)
    ratio += torch.distributions.Normal(mean(proposed), std).log_prob(start)
    ratio -= torch.distributions.Normal(mean(start), std).log_prob(proposed)
    expected = ratio.exp().clamp(max=1)[:, 0]
    surely = (expected == 1).nonzero()[:, 0]
    assert torch.equal(after.x[surely], proposed[surely])
    observed = after.accepted.double().unflatten(0, (10, -1)).mean(1)
    torch.testing.assert_close(observed, expected.unflatten(0, (10, -1)).mean(1), atol=0.03, rtol=0)


def test_mala_keeps_value_and_gradient_of_where_it_is():
    kernel = MALA(standard_normal, 3.0)
    state = kernel.prepare(State(torch.randn(100, 2)))
    for _ in range(5):
        state = kernel.step(state, seeded())
        torch.testing.assert_close(state.memory, -state.x)
        torch.testing.assert_close(state.log_prob, standard_normal(state.x))


def test_tuned_mala():
    kernel, x = tune(MALA(standard_normal, 1e-3), torch.zeros(200, 3), 500, generator=seeded())
    assert abs(run_chains(kernel, x, 200, generator=seeded()).acceptance.mean() - 0.574) < 0.03


def conjugate():
    """Observations N(theta, 1), prior N(0, 4): the posterior in closed form."""
    data = 1.5 + torch.randn(200, 1, generator=seeded(7), dtype=torch.float64)
    variance = 1 / (1 / 4 + len(data))
    return data, variance * data.sum().item(), variance


def log_prior(x):
    return -0.5 * x.square().sum(1) / 4


def log_likelihood(x, rows):
    return -0.5 * (rows[:, 0] - x).square()


def test_minibatch_gradients_are_unbiased():
    data, mean, variance = conjugate()
    gradient = minibatch_gradient(log_prior, log_likelihood, data, 20)
    x, generator = torch.tensor([[1.0], [2.0]], dtype=torch.float64), seeded()
    drawn = torch.stack([gradient(x, generator) for _ in range(2000)])
    error = drawn.std(0) / math.sqrt(2000)
    assert ((drawn.mean(0) - (mean - x) / variance).abs() < 4 * error).all()


def test_stochastic_gradient_langevin_finds_the_posterior():
    data, mean, variance = conjugate()
    gradient = minibatch_gradient(log_prior, log_likelihood, data, 50)
    kernel = StochasticGradientLangevin(gradient, polynomial_decay(0.3 * variance, delay=100))
    start = torch.zeros(1000, 1, dtype=torch.float64)
    chains = run_chains(kernel, start, draws=600, warmup=400, generator=seeded())
    draws = chains.samples[..., 0]
    assert abs(draws.mean() - mean) < 0.3 * math.sqrt(variance)
    assert 0.9 < draws.var(0).mean() / variance < 1.15
    assert chains.log_prob is None


def test_step_sizes_follow_the_schedule():
    seen = []
    schedule = polynomial_decay(0.4, delay=2, power=1.0)
    kernel = StochasticGradientLangevin(lambda x, g: -x, lambda t: seen.append(t) or schedule(t))
    run_chains(kernel, torch.zeros(3, 1), draws=2, warmup=1, thin=2, generator=seeded())
    assert seen == [0, 1, 2, 3, 4]
    assert [schedule(t) for t in (0, 2, 6)] == pytest.approx([0.4, 0.2, 0.1])


def test_stochastic_gradient_langevin_with_the_whole_gradient_is_langevin():
    whole = StochasticGradientLangevin(lambda x, g: -x, 0.3)
    a, b = (run_chains(k, torch.ones(5, 2), 20, generator=seeded()) for k in (whole, Langevin(standard_normal, 0.3)))
    torch.testing.assert_close(a.samples, b.samples)


def test_running_away_is_an_error():
    for kernel in (Langevin(lambda x: -x.pow(4).sum(1), 1.0), StochasticGradientLangevin(lambda x, g: -4 * x**3, 1.0)):
        with pytest.raises(FloatingPointError, match="step size 1: take a smaller one"):
            run_chains(kernel, torch.full((3, 1), 3.0), 50, generator=seeded())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MALA(standard_normal, 0.0), "MALA expects a step size that is positive"),
        (lambda: Langevin(standard_normal, math.inf), "positive and finite, got inf"),
        (lambda: run_chains(Langevin(lambda x: x.detach().sum(1), 0.1), torch.zeros(2, 2), 1), "differentiable by x"),
        (lambda: run_chains(MALA(standard_normal, 0.1), torch.zeros(2, 2).long(), 1), "floating dtype"),
        (lambda: run_chains(MALA(lambda x: x.log().sum(1), 0.1), torch.zeros(2, 2), 1), "got -inf in chain 0"),
        (
            lambda: run_chains(StochasticGradientLangevin(lambda x, g: x[0], 0.1), torch.zeros(2, 2), 1),
            "gradient exp",
        ),
        (lambda: run_chains(StochasticGradientLangevin(lambda x, g: x, 0.0), torch.zeros(2, 2), 1), "positive, got 0"),
        (lambda: polynomial_decay(0.1, power=0.5), r"power in \(0.5, 1\], got 0.5"),
        (lambda: minibatch_gradient(log_prior, log_likelihood, torch.zeros(5, 1), 6), "batch size of 1 to 5, got 6"),
        (
            lambda: minibatch_gradient(log_prior, lambda x, d: x[:, 0], torch.zeros(5, 1), 2)(torch.zeros(3, 1)),
            r"log likelihood expects to be of shape \(3, 2\), got \(3,\)",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
