"""Importance sampling against moments and evidences in closed form."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, StudentT

from waveflow.errors import InputError
from waveflow.sampling import WeightedSamples, importance_sample


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian_posterior():
    """x ~ N(0, I), y = A x + noise of deviation 0.5: log p(x, y), and the posterior and evidence in closed form."""
    a = torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    y = torch.tensor([1.0, -0.5, 0.7], dtype=torch.float64)
    precision = torch.eye(2, dtype=torch.float64) + a.T @ a / 0.25
    posterior = MultivariateNormal(torch.linalg.solve(precision, a.T @ y / 0.25), precision_matrix=precision)
    eye = torch.eye(3, dtype=torch.float64)
    evidence = MultivariateNormal(torch.zeros(3, dtype=torch.float64), a @ a.T + 0.25 * eye).log_prob(y)
    one = torch.ones((), dtype=torch.float64)

    def log_joint(x):
        return Normal(0 * one, one).log_prob(x).sum(1) + Normal(x @ a.T, 0.5 * one).log_prob(y).sum(1)

    return log_joint, posterior, evidence


def test_a_conjugate_posterior():
    log_joint, posterior, evidence = gaussian_posterior()
    prior = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    draws = importance_sample(log_joint, prior, 100_000, seeded())
    mean, error = draws.self_normalised_mean()
    assert ((mean - posterior.mean).abs() < 4 * error).all() and error.max() < 0.01
    second = draws.self_normalised_mean(lambda x: x[:, :, None] * x[:, None, :])
    expected = posterior.covariance_matrix + torch.outer(posterior.mean, posterior.mean)
    assert ((second.value - expected).abs() < 4 * second.standard_error).all()
    found = draws.log_evidence()
    assert (found.value - evidence).abs() < 4 * found.standard_error < 0.1


def test_plain_mean_of_a_normalised_target():
    target, proposal = Normal(1.0, 1.0), StudentT(3.0, 0.0, 2.0)
    draws = importance_sample(target.log_prob, proposal, 100_000, seeded())
    for function, expected in ((lambda x: x, 1.0), (torch.square, 2.0), (torch.ones_like, 1.0)):
        value, error = draws.mean(function)
        assert abs(value - expected) < 4 * error < 0.05
    shifted = WeightedSamples(draws.x, draws.log_weights + 5.0)
    torch.testing.assert_close(shifted.self_normalised_mean().value, draws.self_normalised_mean().value)
    assert shifted.mean().value > 100


@pytest.mark.parametrize("estimate", ["mean", "self_normalised_mean", "log_evidence"])
def test_standard_errors_are_the_spread_over_repetitions(estimate):
    generator, values = seeded(), []
    for _ in range(300):
        draws = importance_sample(Normal(0.5, 0.7).log_prob, Normal(0.0, 1.0), 500, generator)
        values.append(torch.stack(getattr(draws, estimate)()))
    values = torch.stack(values)
    assert 0.85 < values[:, 0].std() / values[:, 1].mean() < 1.15


def test_effective_sample_size():
    generator = seeded()
    same = importance_sample(Normal(0.0, 1.0).log_prob, Normal(0.0, 1.0), 1000, generator)
    assert math.isclose(same.effective_sample_size(), 1000, rel_tol=1e-9)
    one = WeightedSamples(torch.zeros(3, 1), torch.tensor([0.0, -2000.0, -2000.0], dtype=torch.float64))
    assert math.isclose(one.effective_sample_size(), 1)
    two = WeightedSamples(torch.zeros(2, 1), torch.tensor([1.0, 3.0], dtype=torch.float64).log())
    assert math.isclose(two.effective_sample_size(), 16 / 10)
    # For p = N(0, 1), q = N(0, s^2): N / E_q[w^2], E_q[w^2] = s^2 / sqrt(2 s^2 - 1).
    wide = importance_sample(Normal(0.0, 1.0).log_prob, Normal(0.0, 2.0), 200_000, generator)
    assert math.isclose(wide.effective_sample_size() / 200_000, math.sqrt(7) / 4, rel_tol=0.01)


def test_resampling_and_draws_outside_the_support():
    support = torch.distributions.Uniform(0.0, 1.0, validate_args=False)
    draws = importance_sample(support.log_prob, Normal(0.0, 1.0), 50_000, seeded())
    points = draws.resample(20_000, seeded())
    assert points.min() >= 0 and points.max() <= 1
    assert abs(points.mean() - 0.5) < 0.02 and abs(points.var() - 1 / 12) < 0.005


def test_torch_distributions_follow_the_generator_and_leave_the_global_one():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    proposal = Normal(0.0, 1.0)
    first, again, other = (importance_sample(proposal.log_prob, proposal, 10, seeded(s)).x for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("target", "proposal", "count", "message"),
    [
        (lambda x: x, Normal(torch.zeros(2), 1.0), 9, r"one number for each point, \(9,\), got \(9, 2\)"),
        (lambda x: x, MultivariateNormal(torch.zeros(2), torch.eye(2)), 9, r"target.*\(9,\), got \(9, 2\)"),
        (lambda x: x * math.nan, Normal(0.0, 1.0), 9, "got 9 of 9 that are NaN or inf"),
        (lambda x: x * 0 - math.inf, Normal(0.0, 1.0), 9, "9 draws of density 0"),
        (lambda x: x.long(), Normal(0.0, 1.0), 9, "floating tensor, got torch.int64"),
        (lambda x: 0.0, Normal(0.0, 1.0), 9, "floating tensor, got float"),
        (lambda x: x, Normal(0.0, 1.0), 1, "count of at least 2, got 1"),
        (lambda x: x, torch.randn, 9, "methods sample and log_prob"),
    ],
)
def test_bad_input_is_named(target, proposal, count, message):
    with pytest.raises(InputError, match=message):
        importance_sample(target, proposal, count)


def test_a_function_of_another_length_is_refused():
    draws = importance_sample(Normal(0.0, 1.0).log_prob, Normal(0.0, 1.0), 9)
    for mean in (draws.mean, draws.self_normalised_mean):
        with pytest.raises(InputError, match=r"expects to give 9 values, got \(1,\)"):
            mean(lambda x: x[:1])
