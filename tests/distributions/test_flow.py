"""Flows and their bases, against closed forms and numerical integration."""

import math

import pytest
import torch
from scipy import stats

from waveflow.bijectors import Affine, Bijector, Chain, Elementwise, InvertibleConv1x1
from waveflow.context import Ragged
from waveflow.distributions import Flow, StandardLogistic, StandardNormal


def linear_flow():
    flow = Flow(StandardNormal(), Chain([Elementwise(Affine("exp"), (3,)), InvertibleConv1x1(3)]), (3,))
    with torch.no_grad():
        flow.bijector[0].raw.copy_(torch.tensor([[0.5, -1.0, 2.0], [0.3, -0.2, 0.1]]))
    return flow.double()


def as_gaussian(flow):
    shift, log_scale = flow.bijector[0].raw
    matrix = flow.bijector[1].matrix(torch.float64) @ torch.diag(log_scale.exp())
    inverse = torch.linalg.inv(matrix)
    mean = -inverse @ flow.bijector[1].matrix(torch.float64) @ shift
    return torch.distributions.MultivariateNormal(mean, covariance_matrix=inverse @ inverse.T)


def test_a_linear_flow_is_a_gaussian():
    flow = linear_flow()
    x = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(flow.log_prob(x), as_gaussian(flow).log_prob(x))
    drawn = flow.sample((200_000,), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.T.cov(), as_gaussian(flow).covariance_matrix, atol=0.03, rtol=0.03)


def test_sample_with_log_prob_agrees_with_log_prob_and_is_differentiable():
    flow = linear_flow()
    x, log_prob = flow.sample_with_log_prob((4, 5))
    assert x.shape == (4, 5, 3) and log_prob.shape == (4, 5)
    torch.testing.assert_close(flow.log_prob(x), log_prob)
    log_prob.sum().backward()
    assert flow.bijector[0].raw.grad.any()


@pytest.mark.parametrize("base", [StandardNormal(), StandardLogistic()])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_bases_against_scipy(base, temperature):
    reference = {"StandardNormal": stats.norm, "StandardLogistic": stats.logistic}[type(base).__name__](
        scale=temperature
    )
    z = torch.linspace(-6, 6, 41, dtype=torch.float64)
    expected = torch.as_tensor(reference.logpdf(z.numpy()))
    torch.testing.assert_close(base.log_prob(z[:, None], temperature), expected)
    drawn = base.sample((100_000,), temperature, torch.Generator().manual_seed(0))
    assert stats.kstest(drawn.numpy(), reference.cdf).pvalue > 1e-3


def test_temperature_zero_draws_zeros_and_negative_is_refused():
    assert not StandardNormal().sample((3,), 0.0).any()
    for base in (StandardNormal(), StandardLogistic()):
        with pytest.raises(ValueError, match="temperature >= 0, got -1"):
            base.sample((3,), -1)
        with pytest.raises(ValueError, match="positive temperature, got 0"):
            base.log_prob(torch.zeros(1, 1), 0)


class AddContext(Bijector):
    needs_context = True
    constant_log_det = True

    def forward(self, x, context=None):
        return x - context, torch.zeros(len(x))

    def inverse(self, z, context=None):
        return z + context, torch.zeros(len(z))


def test_shapes_with_and_without_context():
    flow = Flow(StandardNormal(), AddContext(), (2,))
    context = torch.tensor([[0.0, 0.0], [100.0, 200.0], [-5.0, 5.0]])
    x = flow.sample((7, 4), context, temperature=0.1)
    assert x.shape == (7, 4, 3, 2)
    torch.testing.assert_close(x.mean((0, 1)), context, atol=0.2, rtol=0)
    log_prob = flow.log_prob(x, context)
    assert log_prob.shape == (7, 4, 3)
    torch.testing.assert_close(log_prob[2, 1], flow.log_prob(x[2, 1], context))
    assert linear_flow().sample().shape == (3,)
    with pytest.raises(ValueError, match="context of batch size 2, got 3"):
        flow.log_prob(x[0, 0, :2], context)
    with pytest.raises(ValueError, match="batch of events with 1 axes"):
        flow.log_prob(torch.zeros(2))


def test_log_density_integrates_to_one():
    flow = Flow(StandardLogistic(), Elementwise(Affine(), (1,)), (1,)).double()
    with torch.no_grad():
        flow.bijector.raw.copy_(torch.tensor([[0.7], [-0.4]]))
    grid = torch.linspace(-80, 80, 20001, dtype=torch.float64)
    assert math.isclose(torch.trapezoid(flow.log_prob(grid[:, None]).exp(), grid).item(), 1, abs_tol=1e-6)


def test_inverse_error_and_non_finite_samples():
    flow = linear_flow()
    assert flow.inverse_error(torch.randn(4, 3, dtype=torch.float64)).max() < 1e-12
    with torch.no_grad():
        flow.bijector[0].raw[1] = -1e4
    with pytest.raises(FloatingPointError, match="not finite"):
        flow.sample((2,))
    with flow.validate(), pytest.raises(FloatingPointError, match=r"Elementwise\.inverse"):
        flow.sample((2,))


def test_sample_checks_itself_on_request():
    flow = linear_flow()
    flow.sample((5,), check=1e-9)
    with pytest.raises(FloatingPointError, match="latents that are off by"):
        flow.float().sample((500,), check=1e-12)


def test_densities_of_padded_batches_and_other_shapes_are_refused():
    flow = Flow(StandardNormal(), AddContext(), (2,))
    ragged = Ragged(torch.zeros(3, 2), torch.ones(3, 1))
    for call in (lambda: flow.log_prob(torch.zeros(3, 2), ragged), lambda: flow.sample_with_log_prob((), ragged)):
        with pytest.raises(ValueError, match="no densities of padded batches"):
            call()
    with pytest.raises(ValueError, match=r"events of shape \(3,\), got \(4,\)"):
        linear_flow().log_prob(torch.zeros(2, 4).double())
    with pytest.raises(ValueError, match="whole shape of an event to sample"):
        Flow(StandardNormal(), Chain([]), (2, None)).sample()
