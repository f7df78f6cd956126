"""Heads against scipy, naive sums over all values, and counts of what is drawn."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from waveflow.bijectors.solvers import Jacobi, Sequential
from waveflow.distributions import Bernoulli, Categorical, DiscretisedMixtureOfLogistics
from waveflow.errors import InputError
from waveflow.networks import MADE

HEADS = {
    "categorical": lambda: Categorical(7),
    "categorical, 256": lambda: Categorical(256),
    "bernoulli": Bernoulli,
    "logistics": lambda: DiscretisedMixtureOfLogistics(3, 7),
    "one logistic, two values": lambda: DiscretisedMixtureOfLogistics(1, 2),
    "logistics, 256": lambda: DiscretisedMixtureOfLogistics(10, 256),
}
TEMPERATURES = [0.3, 1.0, 2.0]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def all_log_probs(head, params, temperature=1.0):
    """(values, B, *event): the log-probability of every value."""
    x = torch.arange(head.values).reshape(-1, *[1] * (params.ndim - 1)).expand(-1, len(params), *params.shape[2:])
    return torch.stack([head.log_prob(value, params, temperature) for value in x])


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", HEADS)
def test_probabilities_sum_to_one(name, temperature):
    head = HEADS[name]()
    for scale in (0.0, 1.0, 10.0):
        params = scale * random(4, head.params, 3, 2)
        log_prob = all_log_probs(head, params, temperature)
        assert log_prob.dtype == torch.float32 and log_prob.shape == (head.values, 4, 3, 2)
        torch.testing.assert_close(log_prob.logsumexp(0), torch.zeros(4, 3, 2), atol=2e-5, rtol=0)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", HEADS)
def test_quantile_is_the_smallest_value_that_reaches_u(name, temperature):
    head = HEADS[name]()
    params = 2 * random(100, head.params, 2).double()
    u = torch.rand(100, 2, generator=torch.Generator().manual_seed(1)).double()
    below = all_log_probs(head, params, temperature).exp().cumsum(0)
    expected = (below < u).sum(0).double()
    x = head.quantile(u, params, temperature)
    assert x.dtype == torch.float64 and torch.equal(x, expected)
    value, log_prob = head.inverse(u, params, temperature)
    assert torch.equal(value, expected) and torch.equal(log_prob, head.log_prob(expected, params, temperature))


@pytest.mark.parametrize("name", HEADS)
def test_drawn_values_are_as_frequent_as_they_are_probable(name):
    head = HEADS[name]()
    params = random(1, head.params, 1)
    u = torch.rand(100_000, 1, generator=torch.Generator().manual_seed(2))
    counts = head.quantile(u, params.expand(len(u), -1, -1)).long().flatten().bincount(minlength=head.values)
    expected = len(u) * all_log_probs(head, params.double()).exp().flatten()
    usual = expected >= 5
    pooled = [[*c[usual].tolist(), c[~usual].sum().item() + 1] for c in (counts, expected)]  # + 1: pools may be empty
    pooled[1] = [e * sum(pooled[0]) / sum(pooled[1]) for e in pooled[1]]
    assert stats.chisquare(*pooled).pvalue > 1e-3


def test_categorical_and_bernoulli_against_scipy():
    logits = random(5, 4, 3).double()
    probabilities = logits.exp() / logits.exp().sum(1, keepdim=True)
    x = torch.randint(4, (5, 3), generator=torch.Generator().manual_seed(0))
    expected = stats.multinomial(1, probabilities.movedim(1, -1).numpy()).logpmf(torch.eye(4).int()[x].numpy())
    torch.testing.assert_close(Categorical(4).log_prob(x, logits), torch.as_tensor(expected))
    logit, x = random(5, 1, 3).double(), x % 2
    expected = stats.bernoulli((1 / (1 + (-logit[:, 0]).exp())).numpy()).logpmf(x.numpy())
    torch.testing.assert_close(Bernoulli().log_prob(x, logit), torch.as_tensor(expected))


def test_logistics_against_scipy():
    head = DiscretisedMixtureOfLogistics(2, 9)
    params = random(6, 6, 1).double()
    weights = params[:, :2].softmax(1)
    means = params[:, 2:4] + torch.tensor([-0.5, 0.5])[:, None]
    scales = (8 * torch.tanh(params[:, 4:] / 8)).exp() / 4
    edges = torch.tensor([-math.inf, *torch.linspace(-1.125, 1.125, 10)[1:-1].tolist(), math.inf])
    for value in range(9):
        upper, lower = (
            torch.as_tensor(stats.logistic(means, scales).cdf(edge.double())) for edge in edges[[value + 1, value]]
        )
        expected = (weights * (upper - lower)).sum(1).log()
        torch.testing.assert_close(head.log_prob(torch.full((6, 1), value), params), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("values", [2, 256, 65536])
def test_far_and_narrow_logistics_keep_their_logarithms(values):
    # One component, much narrower than a value, at the far end: log P is minus the distance in scales.
    head = DiscretisedMixtureOfLogistics(1, values)
    for raw in (-1e4, -4.0, 1e4):
        params = torch.tensor([[[0.0], [3.0], [raw]]], requires_grad=True)
        scale = math.exp(8 * math.tanh(raw / 8)) / 2
        log_prob = head.log_prob(torch.tensor([[0]]), params)
        edge = (-1 + 1 / (values - 1) - 3) / scale
        torch.testing.assert_close(log_prob.item(), float(stats.logistic.logcdf(edge)), rtol=1e-4, atol=1e-6)
        assert head.log_prob(torch.tensor([[values - 1]]), params).item() <= 0
        (gradient,) = torch.autograd.grad(log_prob.sum(), params)
        assert gradient.isfinite().all() and gradient[0, 1] <= 0


@pytest.mark.parametrize("name", HEADS)
def test_gradients_are_finite_everywhere(name):
    head = HEADS[name]()
    for size in (0.0, 1.0, 1e2, 1e6, 1e30):
        params = (size * random(3, head.params, head.values, seed=3)).requires_grad_()
        log_prob = head.log_prob(torch.arange(head.values).expand(3, -1), params)
        (gradient,) = torch.autograd.grad(log_prob.sum(), params)
        assert log_prob.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("name", HEADS)
def test_gradients_agree_with_finite_differences(name):
    head = HEADS[name]()
    if head.values > 10:
        return
    x = torch.arange(head.values).expand(2, -1)
    params = random(2, head.params, head.values).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: head.log_prob(x, p), params)
    assert torch.autograd.gradgradcheck(lambda p: head.log_prob(x, p), params)


@pytest.mark.parametrize("name", HEADS)
def test_no_value_of_no_probability_is_drawn(name):
    # u as close to 0 and 1 as float32 has them, where sums that are rounded would give the first or the last value.
    head = HEADS[name]()
    params = 8 * random(5000, head.params, 1)
    for u in (torch.finfo(torch.float32).eps / 4, 1 - 2**-24):
        _, log_prob = head.inverse(torch.full((5000, 1), u), params)
        assert log_prob.min() > -28  # u itself is 2^-25; a border may lie close to it by chance


@pytest.mark.parametrize("name", HEADS)
def test_temperature_sharpens_down_to_the_most_probable(name):
    head = HEADS[name]()
    params = random(50, head.params, 1)
    entropy = []
    for temperature in (0.0, 0.3, 1.0, 3.0):
        log_prob = all_log_probs(head, params, temperature)
        entropy.append(-(log_prob.exp() * log_prob).sum(0).mean())
    assert entropy[0] < 0.05 and entropy == sorted(entropy)
    if not isinstance(head, DiscretisedMixtureOfLogistics):  # whose components, not values, compete
        x = head.quantile(torch.full((50, 1), 0.5), params, 0.0)
        assert torch.equal(x.long(), all_log_probs(head, params).argmax(0))


def test_logistics_at_temperature_zero_are_the_mean_of_the_heaviest_component():
    head = DiscretisedMixtureOfLogistics(2, 101)
    params = torch.tensor([[0.0, 1.0, 0.0, -0.1, 0.0, 2.0]])[..., None]  # means -0.5 and 0.4
    assert head.quantile(torch.tensor([[0.5]]), params, 0.0).item() == 70


def test_zero_parameters_are_nearly_uniform():
    for head in (Categorical(256), Bernoulli()):
        torch.testing.assert_close(
            all_log_probs(head, torch.zeros(1, head.params, 1)), torch.full((head.values, 1, 1), -math.log(head.values))
        )
    head = DiscretisedMixtureOfLogistics(10, 256)
    bits = -all_log_probs(head, torch.zeros(1, head.params, 1)).mean() / math.log(2)
    assert 8 <= bits < 8.1


@pytest.mark.parametrize("name", HEADS)
def test_is_computed_in_float32_under_bfloat16(name):
    head = HEADS[name]()
    params = random(3, head.params, 5).bfloat16()
    u = torch.rand(3, 5)
    expected = head.inverse(u, params.float())
    with torch.autocast("cpu", torch.bfloat16):
        got = head.inverse(u, params)
    assert got[1].dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", HEADS)
def test_compiles_as_one_graph_maps_by_vmap_and_takes_empty_batches(name):
    head = HEADS[name]()
    params, u = random(3, 4, head.params, 2), torch.rand(3, 4, 2)
    expected = head.inverse(u[0], params[0])
    torch._dynamo.reset()
    compiled = torch.compile(head.inverse, fullgraph=True, backend="eager")(u[0], params[0])
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(torch.func.vmap(head.inverse)(u, params)[1][0], expected[1])
    x, log_prob = head.inverse(u[0, :0], params[0, :0])
    assert x.shape == log_prob.shape == (0, 2)


def test_solvers_take_a_head_for_a_univariate_map():
    head = Categorical(5)
    torch.manual_seed(0)
    made = MADE(6, (20,), head.params).double()
    nn.init.normal_(made.last.weight)
    u = torch.rand(50, 6).double()
    sequential, jacobi = (solver(made, head, u, None) for solver in (Sequential(), Jacobi(0.0)))
    assert torch.equal(sequential.x, jacobi.x)
    torch.testing.assert_close(sequential.log_det, head.log_prob(sequential.x, made(sequential.x)).sum(1))
    torch.testing.assert_close(jacobi.log_det, sequential.log_det)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Categorical(1), "Categorical expects at least 2 values, got 1"),
        (lambda: DiscretisedMixtureOfLogistics(3, 1), "DiscretisedMixtureOfLogistics expects at least 2 values, got 1"),
        (lambda: DiscretisedMixtureOfLogistics(0), "DiscretisedMixtureOfLogistics expects at least 1 component, got 0"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
