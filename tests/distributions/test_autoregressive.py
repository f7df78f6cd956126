"""Discrete autoregressive distributions against sums over all events and a sampler of whole passes."""

import itertools
import math

import pytest
import torch
from torch import nn

from waveflow.bijectors.solvers import Auto, Jacobi, Sequential
from waveflow.context import Ragged
from waveflow.distributions import (
    AutoregressiveDistribution,
    Bernoulli,
    Categorical,
    DiscretisedMixtureOfLogistics,
    maximum_likelihood,
)
from waveflow.errors import InputError
from waveflow.networks import MADE, GatedPixelCNNStack, PixelCNNStack


def perturbed(module: nn.Module, scale: float = 0.5) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return module


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Lagged(nn.Module):
    """A causal convolution of signals (1, T) of any length, without a stepper or an order of its own."""

    def __init__(self, outputs: int, context: int = 0):
        super().__init__()
        self.convolution = nn.Conv1d(1 + context, outputs, 3)

    def forward(self, x, context=None):
        delayed = nn.functional.pad(x, (1, -1))
        if context is not None:
            delayed = torch.cat([delayed, context], 1)
        return self.convolution(nn.functional.pad(delayed, (2, 0))).unsqueeze(2)


class Pairs(nn.Module):
    """Vectors of four, two numbers a step: those of the second step follow from the first two."""

    event_shape = (4,)

    def __init__(self, outputs: int):
        super().__init__()
        self.outputs = outputs
        self.linear = nn.Linear(2, 4 * outputs)

    def forward(self, x, context=None):
        first = self.linear.bias.expand(len(x), -1).unflatten(1, (self.outputs, 4))
        both = self.linear(x[:, [3, 0]]).unflatten(1, (self.outputs, 4))
        return torch.where(torch.tensor([True, False, False, True]), first, both)

    def positions(self, event):
        return torch.tensor([[3, 0], [1, 2]])

    def stepper(self, batch, context=None):
        return PairStepper(self, batch)


class PairStepper:
    def __init__(self, network, batch):
        self.network, self.x, self.step = network, network.linear.weight.new_zeros(batch, 4), 0

    def params(self):
        return self.network(self.x)[:, :, self.network.positions((4,))[self.step]]

    def push(self, values):
        self.x[:, self.network.positions((4,))[self.step]] = values
        self.step += 1


def distribution(conditioner, head, event):
    return AutoregressiveDistribution(perturbed(conditioner), head, event)


CASES = {
    "vectors": lambda: distribution(MADE(5, (20,), 3, order=[3, 0, 4, 2, 1]), Categorical(3), (5,)),
    "vectors, context": lambda: distribution(MADE(5, (20,), 1, context=2), Bernoulli(), (5,)),
    "two numbers a step": lambda: distribution(Pairs(6), DiscretisedMixtureOfLogistics(2, 5), (4,)),
    "image": lambda: distribution(PixelCNNStack((2, 3, 3), 4, 8, 1), Categorical(4), (2, 3, 3)),
    "image, context": lambda: distribution(
        GatedPixelCNNStack((3, 2, 4), 6, 6, 2, context=2), DiscretisedMixtureOfLogistics(2, 256), (3, 2, 4)
    ),
    "sound": lambda: distribution(Lagged(8), Categorical(8), (1, 9)),
}


def make(name: str):
    torch.manual_seed(0)
    model = CASES[name]().double()
    return model, torch.eye(2, dtype=torch.float64).repeat(3, 1)[:5] if "context" in name else None


def plain_sample(model, u, context=None, temperature=1.0):
    """The whole network for every number; which number is next is found by what stays the same."""
    scale = (model.head.values - 1) / 2
    x = torch.zeros_like(u)
    for _ in range(u[0].numel()):
        x = model.head.quantile(u, model.conditioner(x / scale - 1, context), temperature)
    return x


@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_equal_noise_gives_equal_events_by_every_solver(name, temperature):
    model, context = make(name)
    u = noise(5, *model.event_shape())
    expected = plain_sample(model, u, context, temperature)
    assert expected.unique().numel() > 1 or not temperature
    solvers = [Jacobi(0.0), Jacobi(0.0, block=2), "jacobi", Auto()]
    if hasattr(model.conditioner, "stepper"):
        solvers.append(Sequential())
    for solver in solvers:
        solution = model.solve(u, context, temperature, solver)
        assert torch.equal(solution.x, expected)
        if temperature == 1:
            torch.testing.assert_close(solution.log_det, model.log_prob(solution.x, context), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["vectors", "vectors, context", "two numbers a step"])
def test_probabilities_of_all_events_sum_to_one(name):
    model, context = make(name)
    size = model.event_shape()[0]
    x = torch.tensor(list(itertools.product(range(model.head.values), repeat=size)))
    context = None if context is None else context[:1].expand(len(x), -1)
    log_prob = model.log_prob(x, context)
    assert log_prob.shape == (len(x),) and math.isclose(log_prob.exp().sum().item(), 1, rel_tol=1e-9)


def test_samples_are_as_frequent_as_they_are_probable():
    model = distribution(MADE(3, (12,), 3), Categorical(3), (3,))
    drawn = model.sample((60_000,), generator=torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64
    x = torch.tensor(list(itertools.product(range(3), repeat=3)))
    counts = (drawn @ torch.tensor([9, 3, 1])).bincount(minlength=27)
    expected = 60_000 * model.log_prob(x).exp().detach()
    chi2 = ((counts - expected).square() / expected.clamp(min=1)).sum()
    assert chi2 < 60  # 26 degrees of freedom: exceeded once in 5,000 times


def test_the_network_sees_values_between_minus_one_and_one():
    class Watched(nn.Module):
        def forward(self, x, context=None):
            self.seen = x
            return torch.zeros(x.shape[0], 256, *x.shape[1:])

    network = Watched()
    model = AutoregressiveDistribution(network, Categorical(256), (3,))
    nats = model(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
    torch.testing.assert_close(network.seen, torch.tensor([[-1.0, -0.6, 1.0]]))
    torch.testing.assert_close(nats, torch.tensor([-3 * math.log(256)]))


@pytest.mark.parametrize("name", CASES)
def test_leading_shapes_and_contexts(name):
    model, context = make(name)
    event, batch = model.event_shape(), () if context is None else (5,)
    x = model.sample((2, 3), context, generator=torch.Generator().manual_seed(0))
    assert x.shape == (2, 3, *batch, *event)
    log_prob = model.log_prob(x, context)
    assert log_prob.shape == (2, 3, *batch)
    each = [model.log_prob(part, context) if batch else model.log_prob(part[None])[0] for part in x.flatten(0, 1)]
    torch.testing.assert_close(log_prob.flatten(0, 1), torch.stack(each))
    assert model.sample((0,), context).shape == (0, *batch, *event)
    assert model.log_prob(torch.zeros(0, *event), None if context is None else context[:0]).shape == (0,)
    if context is not None:
        likely = model.sample((2,), context, temperature=0.0)
        alone = [model.sample((), row[None], temperature=0.0) for row in context]
        assert torch.equal(likely, torch.cat(alone).expand_as(likely)) and not torch.equal(*alone[:2])
        assert (model.log_prob(x[0, 0], context) - model.log_prob(x[0, 0], context.flip(1))).abs().min() > 1e-6


@pytest.mark.parametrize("solver", ["sequential", "jacobi"])
@pytest.mark.parametrize("name", ["vectors", "two numbers a step", "image, context"])
def test_goes_on_from_what_is_given(name, solver):
    model, context = make(name)
    event = model.event_shape()
    model.solver, size = solver, math.prod(event)
    order = model.conditioner.positions(event).flatten()
    shape = () if context is not None else (5,)
    first, second = (model.sample(shape, context, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    for known in (0, 1, size // 2, size):
        # The noise of the second with the beginning of the first; whatever else the first holds has no influence.
        for given in (first, first.flatten(1).index_fill(1, order[known:], 0).reshape(first.shape)):
            drawn = model.sample(
                shape, context, generator=torch.Generator().manual_seed(1), given=given, known=known
            ).flatten(1)
            assert torch.equal(drawn[:, order[:known]], first.flatten(1)[:, order[:known]])
            assert not size > known > 0 or not torch.equal(drawn[:, order[known:]], first.flatten(1)[:, order[known:]])
    assert torch.equal(model.sample(shape, context, generator=torch.Generator().manual_seed(1)), second)
    u = noise(5, *event)
    solution = model.solve(u, context, given=first, known=size // 2)
    params = model.conditioner(solution.x * (2 / (model.head.values - 1)) - 1, context)
    rest = model.head.quantile(u, params).flatten(1)[:, order[size // 2 :]]
    assert torch.equal(rest, solution.x.flatten(1)[:, order[size // 2 :]])
    torch.testing.assert_close(solution.log_det, model.log_prob(solution.x, context))


def test_temperature_zero_needs_no_noise():
    model, _ = make("image")
    drawn = model.sample((4,), temperature=0.0)
    assert (drawn == drawn[0]).all()
    greedy = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    for _ in range(18):
        greedy = model.conditioner(greedy / 1.5 - 1).argmax(1).double()
    assert torch.equal(drawn[:1], greedy.long())
    undecided = AutoregressiveDistribution(MADE(3, (8,), 4), Categorical(4), (3,))  # all values equally probable
    assert len(undecided.sample((50,), temperature=0.0).unique(dim=0)) == 1


def test_event_shape_may_follow_from_the_context():
    # Sound whose length is that of what conditions it.
    model = AutoregressiveDistribution(perturbed(Lagged(8, context=2)), Categorical(8), lambda c: (1, c.shape[-1]))
    context = torch.randn(3, 2, 11)
    x = model.sample((2,), context)
    assert x.shape == (2, 3, 1, 11) and model.log_prob(x, context).shape == (2, 3)
    torch.testing.assert_close(model.log_prob(x[0, :, :, :7], context[:, :, :7]).shape, (3,))


def test_learns_by_maximum_likelihood():
    torch.manual_seed(0)
    rows = torch.tensor([[0, 2, 1, 3], [3, 1, 2, 0], [3, 1, 0, 0]])
    model = AutoregressiveDistribution(MADE(4, (32,), 4), Categorical(4), (4,))
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(250):
        optimizer.zero_grad()
        loss = maximum_likelihood(model, {"x": rows})["loss"]
        loss.backward()
        optimizer.step()
    assert abs(loss.item() - math.log(3)) < 0.02
    drawn = {tuple(row) for row in model.sample((30,)).tolist()}
    assert drawn >= {tuple(row) for row in rows.tolist()}


@pytest.mark.parametrize("name", ["vectors", "two numbers a step", "image, context"])
def test_compiles_as_one_graph_and_maps_by_vmap(name):
    model, context = make(name)
    model, context = model.float(), None if context is None else context.float()
    x = model.sample((3,) if context is not None else (3, 5), context)
    expected = model.log_prob(x, context)
    torch._dynamo.reset()
    compiled = torch.compile(model.log_prob, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x[0], context), expected[0])
    torch.testing.assert_close(torch.func.vmap(lambda x: model.log_prob(x, context))(x), expected)


def test_bfloat16_networks_have_float32_probabilities():
    model, _ = make("image")
    model, x = model.float(), torch.randint(4, (3, 2, 3, 3))
    expected = model.log_prob(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = model.log_prob(x)
        drawn = model.sample((3,))
    assert got.dtype == torch.float32 and drawn.shape == (3, 2, 3, 3)
    torch.testing.assert_close(got, expected, rtol=0.03, atol=0.3)


def test_a_network_that_is_not_finite_is_noticed():
    for head in (Categorical(4), DiscretisedMixtureOfLogistics(2, 9)):
        model = AutoregressiveDistribution(MADE(3, (8,), head.params), head, (3,))
        nn.init.constant_(model.conditioner.last.bias, math.nan)
        for solver in ("sequential", "jacobi"):
            with pytest.raises(FloatingPointError, match="not finite"):
                model.sample((2,), solver=solver)


def small(outputs: int = 4) -> AutoregressiveDistribution:
    return AutoregressiveDistribution(MADE(3, (8,), outputs), Categorical(4), (3,))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AutoregressiveDistribution(MADE(3), Bernoulli(), (3,), "newton"), "solver out of .*, got 'newton'"),
        (lambda: small().sample((1,), solver="newton"), "solver out of .*, got 'newton'"),
        (lambda: small().sample((1,), temperature=-1.0), "temperature of at least 0, got -1.0"),
        (lambda: small().sample((1,), temperature=math.nan), "temperature of at least 0, got nan"),
        (lambda: small().log_prob(torch.zeros(2, 4)), r"expects batches of \(3,\), got \(2, 4\)"),
        (lambda: small().log_prob(torch.zeros(3)), r"expects batches of \(3,\), got \(3,\)"),
        (lambda: small(5).log_prob(torch.zeros(2, 3)), r"conditioner that gives \(2, 4, 3\), got \(2, 5, 3\)"),
        (lambda: small().log_prob(torch.zeros(2, 3), torch.zeros(2, 1)), r"MADE expects no context, got \(2, 1\)"),
        (
            lambda: small().log_prob(torch.zeros(2, 3), Ragged(torch.zeros(2, 1, 1), torch.ones(2, 1, 1))),
            "no likelihood of padded batches",
        ),
        (
            lambda: AutoregressiveDistribution(Lagged(4), Categorical(4), (1, None)).sample((2,)),
            r"whole shape of an event to sample, got \(1, None\)",
        ),
        (lambda: small().sample((2,), known=1), r"go on from \(2, 3\) .*, got no events and 1 known"),
        (
            lambda: small().sample((2,), given=torch.zeros(2, 3), known=4),
            r"0 ... 3 numbers known, got events of \(2, 3\) and 4 known",
        ),
        (lambda: small().sample((2,), given=torch.zeros(2, 2), known=1), r"events of \(2, 2\) and 1 known"),
        (
            lambda: small().sample((1,), given=torch.tensor([[0, 4, 0]]), known=1),
            r"numbers 0 ... 3 to go on from, got 0.* ... 4",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, InputError) or "conditioner" in message or "MADE" in message
