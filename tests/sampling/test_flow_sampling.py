"""Flows as proposals and as latent spaces, and how they are fitted."""

import math

import pytest
import torch
from torch import nn

from waveflow.bijectors import ActNorm, Affine, Alternating, Chain, Coupling, Elementwise, InvertibleConv1x1
from waveflow.distributions import Flow, StandardNormal
from waveflow.errors import InputError
from waveflow.sampling import (
    MALA,
    Independence,
    LatentTarget,
    RandomWalk,
    fit_by_reverse_kl,
    fit_to_samples,
    importance_sample,
    run_chains,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Conditioner(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, x, context=None):
        return super().forward(x)


def bent_flow():
    """Couplings with random weights: curved, its density known only through the flow."""
    torch.manual_seed(1)
    layers = [Coupling(Alternating(swap), Conditioner(), Affine()) for swap in (False, True)]
    return Flow(StandardNormal(), Chain(layers), (2,)).eval()


def fresh_flow(*more):
    layers = [Elementwise(Affine(), (2,)), InvertibleConv1x1(2, generator=seeded(2)), *more]
    return Flow(StandardNormal(), Chain(layers), (2,))


GAUSSIAN = torch.distributions.MultivariateNormal(torch.tensor([2.0, -1.0]), torch.tensor([[1.0, 0.6], [0.6, 0.8]]))


def test_a_flow_proposes_its_own_density_always_accepted():
    flow = bent_flow()
    chains = run_chains(Independence(flow.log_prob, flow, ahead=5), torch.zeros(20, 2), 30, generator=seeded())
    assert chains.acceptance.min() > 0.99
    weighted = importance_sample(flow.log_prob, flow, 500, seeded())
    assert math.isclose(weighted.effective_sample_size(), 500, rel_tol=1e-3)
    assert torch.equal(weighted.x, importance_sample(flow.log_prob, flow, 500, seeded()).x)


def test_a_target_in_its_own_latent_space_is_standard_normal():
    flow = bent_flow()
    target, z = LatentTarget(flow.log_prob, flow), torch.randn(50, 2, requires_grad=True)
    torch.testing.assert_close(target(z), StandardNormal().log_prob(z), atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(target(z).sum(), z)
    torch.testing.assert_close(gradient, -z, atol=1e-4, rtol=1e-4)


def test_the_latent_density_is_the_change_of_variables():
    flow, z = bent_flow().double(), torch.randn(4, 2, dtype=torch.float64)
    target = LatentTarget(lambda x: GAUSSIAN.log_prob(x.float()).double(), flow.bijector)
    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda v: flow.bijector.inverse(v[None])[0][0], z[i])
        x = flow.bijector.inverse(z[i : i + 1])[0]
        expected = GAUSSIAN.log_prob(x.float()).item() + jacobian.det().abs().log().item()
        assert math.isclose(target(z[i : i + 1]).item(), expected, rel_tol=1e-6)


@pytest.mark.parametrize("kernel", [lambda p: RandomWalk(p, 1.5), lambda p: MALA(p, 1.0)])
def test_chains_in_latent_space_reach_the_target(kernel):
    target = LatentTarget(GAUSSIAN.log_prob, bent_flow())
    start = target.to_latent(torch.zeros(5000, 2))
    chains = run_chains(kernel(target), start, 2, warmup=150, generator=seeded())
    x = target.to_data(chains.samples, batch_ndim=2)
    assert x.shape == (5000, 2, 2)
    torch.testing.assert_close(target.to_latent(x, batch_ndim=2), chains.samples, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(x[:, -1].mean(0), GAUSSIAN.mean, atol=0.06, rtol=0)
    torch.testing.assert_close(x[:, -1].T.cov(), GAUSSIAN.covariance_matrix, atol=0.06, rtol=0)


def test_a_context_is_the_same_for_all_points():
    class AddContext(Elementwise):
        def forward(self, x, context=None):
            return x - context, torch.zeros(len(x))

        def inverse(self, z, context=None):
            return z + context, torch.zeros(len(z))

    target = LatentTarget(GAUSSIAN.log_prob, AddContext(Affine(), (2,)), context=torch.tensor([[5.0, 6.0]]))
    assert target.to_data(torch.zeros(3, 2)).tolist() == [[5.0, 6.0]] * 3
    torch.testing.assert_close(target(torch.zeros(3, 2)), GAUSSIAN.log_prob(torch.tensor([5.0, 6.0])).expand(3))


def is_the_gaussian(flow):
    x = flow.sample((20_000,), generator=seeded(9)).detach()
    torch.testing.assert_close(x.mean(0), GAUSSIAN.mean, atol=0.08, rtol=0)
    torch.testing.assert_close(x.T.cov(), GAUSSIAN.covariance_matrix, atol=0.1, rtol=0)


@pytest.mark.parametrize("norm", [False, True])
def test_a_linear_flow_fits_a_gaussian_without_samples(norm):
    flow = fresh_flow(*[ActNorm(2)] * norm)
    losses = fit_by_reverse_kl(flow, GAUSSIAN.log_prob, 400, 128, 3e-2, seeded())
    assert len(losses) == 400 and losses[0] > 1 and abs(losses[-1]) < 0.02
    assert not flow.training
    is_the_gaussian(flow)
    flow.train().log_prob(torch.full((5, 2), 100.0) + torch.randn(5, 2))
    is_the_gaussian(flow)


def test_a_linear_flow_fits_samples():
    flow = fresh_flow(ActNorm(2))
    losses = fit_to_samples(flow, GAUSSIAN.sample((5000,)), 400, 256, 3e-2, seeded())
    assert abs(losses[-1] - GAUSSIAN.entropy().item()) < 0.3
    is_the_gaussian(flow)


def test_the_learning_rate_falls_along_a_half_cosine():
    flow = Flow(StandardNormal(), Elementwise(Affine(), (2,)), (2,))
    fit_by_reverse_kl(flow, lambda x: 1000 * x.sum(1), 20, 256, 1e-3, seeded())
    # A gradient that never changes makes each step of Adam as long as the learning rate, whose mean is a half.
    expected = -1e-3 * sum((1 + math.cos(math.pi * t / 20)) / 2 for t in range(20))
    torch.testing.assert_close(flow.bijector.raw[0], torch.full((2,), expected), rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: fit_by_reverse_kl(f, GAUSSIAN.log_prob, 0), InputError, "steps of at least 1, got 0"),
        (lambda f: fit_to_samples(f, torch.zeros(0, 2)), InputError, "samples of at least 1, got 0"),
        (lambda f: fit_by_reverse_kl(f, lambda x: x, 3, 5), InputError, r"\(5,\), got \(5, 2\)"),
        (lambda f: fit_by_reverse_kl(f, lambda x: x[:, 0].log(), 3), FloatingPointError, "objective is nan at step 0"),
        (
            lambda f: fit_to_samples(f, torch.full((3, 2), math.inf), 3),
            FloatingPointError,
            "is nan at step 0",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(fresh_flow())
