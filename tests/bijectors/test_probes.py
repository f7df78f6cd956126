"""What users of flow libraries stumble over: compilation, vmap, second-order gradients, autocast."""

import copy

import pytest
import torch
from registry_vectors import BIJECTORS

from waveflow.bijectors import Autoregressive, Bijector, Elementwise, Inverse, Standardise, Univariate
from waveflow.distributions import Flow, StandardNormal
from waveflow.errors import InputError
from waveflow.networks import MADE


def make(name):
    """The bijector with its parameters moved away from zero, in float64."""
    bijector, x, context = BIJECTORS[name]()
    bijector, generator = bijector.double(), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in bijector.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return bijector, x.double(), None if context is None else context.double()


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("name", BIJECTORS)
def test_compiles_as_one_graph(name, direction):
    bijector, x, context = make(name)
    call = getattr(bijector.float(), direction)  # fewer rounds of root-finding to trace than in float64
    x, context = x.float(), None if context is None else context.float()
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="eager")(x, context)
    torch.testing.assert_close(compiled, call(x, context))


def test_compiles_again_for_events_of_another_size():
    torch._dynamo.reset()
    for features in (3, 5, 7):  # from the second on, sizes are symbols
        bijector = Autoregressive(MADE(features, hidden=(8,)), Standardise())
        x = torch.randn(4, features, generator=torch.Generator().manual_seed(0))
        compiled = torch.compile(bijector, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), bijector(x))


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("name", BIJECTORS)
def test_vmap_maps_over_batches(name, direction):
    bijector, x, context = make(name)
    call = getattr(bijector, direction)
    several = torch.stack([x, 2 * x, -x])
    mapped = torch.func.vmap(lambda batch: call(batch, context))(several)
    for i, batch in enumerate(several):
        torch.testing.assert_close((mapped[0][i], mapped[1][i]), call(batch, context))


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("name", BIJECTORS)
def test_gradients_of_first_and_second_order_agree_with_finite_differences(name, direction):
    bijector, x, context = make(name)
    point = (x if direction == "forward" else bijector(x, context)[0])[:2].detach().requires_grad_()
    context = None if context is None else context[:2].requires_grad_()
    parameters = dict(bijector.named_parameters())
    module = bijector if direction == "forward" else Inverse(bijector)
    prefix = "" if direction == "forward" else "bijector."

    def call(point, context, *values):
        # the sum of both results: cheaper to differentiate twice than all their entries
        named = {prefix + name: value for name, value in zip(parameters, values, strict=True)}
        value, log_det = torch.func.functional_call(module, named, (point, context))
        return (value * torch.arange(1.0, 1 + value.numel()).reshape(value.shape)).sum() + log_det.sum()

    inputs = (point, context, *(p.detach().requires_grad_() for p in parameters.values()))
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("name", BIJECTORS)
def test_float32_is_kept_under_autocast(name):
    bijector, x, _ = make(name)
    bijector, x = copy.deepcopy(bijector).float(), x.float()
    if "oupling" in name:
        pytest.skip("its network runs in bfloat16; the univariate maps have tests of their own")
    exact = bijector(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, log_det = bijector(x)
        rebuilt, inverse_log_det = bijector.inverse(z)
    torch.testing.assert_close((z, log_det), exact, atol=1e-5, rtol=0)
    torch.testing.assert_close((rebuilt, inverse_log_det), (x, -log_det), atol=1e-4, rtol=0)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("name", BIJECTORS)
def test_far_away_all_is_finite(name, direction):
    bijector, x, context = make(name)
    bijector, x = bijector.float(), x.float()
    context = None if context is None else context.float()
    for point in (1e4 * x.sign(), torch.zeros_like(x)):
        point = point.requires_grad_()
        bijector.zero_grad()
        value, log_det = getattr(bijector, direction)(point, context)
        (value.sum() + log_det.sum()).backward()
        gradients = [point.grad, *(p.grad for p in bijector.parameters())]
        assert all(t.isfinite().all() for t in (value, log_det, *gradients))


class _DensityOnly(Bijector):
    def forward(self, x, context=None):
        return x, x.new_zeros(len(x))


class _Square(Univariate):
    params = 0

    def forward(self, x, params):
        return x.square(), (2 * x).abs().log()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: _DensityOnly().inverse(x), "_DensityOnly has no inverse"),
        (lambda x: Inverse(_DensityOnly())(x), "_DensityOnly has no inverse"),
        (lambda x: Elementwise(_Square(), (3,)).inverse(x), "_Square has no inverse"),
        (lambda x: Flow(StandardNormal(), _DensityOnly(), (3,)).sample((2,)), "_DensityOnly has no inverse"),
    ],
)
def test_a_direction_that_is_missing_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.zeros(2, 3))
