"""Autoregressive maps: triangular Jacobians, gradients through the inverse, probes, bad input."""

import pytest
import torch
from registry_autoregressive import BIJECTORS, Lagged, SteppingPixels
from torch import nn

from waveflow.bijectors import Affine, Autoregressive, Chain, Inverse, RationalQuadraticSpline, Standardise
from waveflow.bijectors.solvers import Jacobi, Sequential
from waveflow.networks import MADE


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def perturbed(module: nn.Module, scale: float = 0.3) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return module


def make(name: str):
    """From the registry, with its parameters moved away from zero, in float64."""
    torch.manual_seed(0)
    bijector, x, context = BIJECTORS[name]()
    return perturbed(bijector).double(), x.double(), None if context is None else context.double()


def maf(features: int = 5, univariate=None, solver="auto", **options) -> Autoregressive:
    univariate = univariate or Standardise()
    torch.manual_seed(0)
    made = MADE(features, **{"hidden": (16, 16), "outputs": univariate.params, **options})
    return perturbed(Autoregressive(made, univariate, solver))


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 1, 2]])
def test_jacobian_is_triangular_in_the_order(order):
    f, x = maf(order=order).double(), random(1, 5).double()
    for call in (f, f.inverse):
        jacobian = torch.autograd.functional.jacobian(lambda t, call=call: call(t)[0][0], x)[:, 0]
        jacobian = jacobian[order][:, order]
        assert not jacobian.triu(1).any()
        assert jacobian.diagonal().min() > 0 and jacobian.tril(-1).any()


def test_one_gaussian_conditional_in_closed_form():
    f = Autoregressive(MADE(2, (1,), 2), Standardise("exp"))
    made = f.conditioner
    with torch.no_grad():
        made.layers[0].weight.copy_(torch.tensor([[2.0, 5.0]]))  # the second is masked
        made.layers[0].bias.fill_(1.0)
        made.last.weight.copy_(torch.tensor([[7.0], [3.0], [7.0], [0.5]]))  # mean 1, mean 2, log std 1, log std 2
        made.last.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    x1, x2 = 0.7, -1.1
    hidden = 2 * x1 + 1
    mean, log_std = 3 * hidden + 0.2, 0.5 * hidden + 0.4
    z, log_det = f(torch.tensor([[x1, x2]]))
    expected = torch.tensor([[(x1 - 0.1) * 2.718281828**-0.3, (x2 - mean) * 2.718281828**-log_std]])
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(log_det, torch.tensor([-0.3 - log_std]))


@pytest.mark.parametrize("solver", ["sequential", Jacobi(0.0), Sequential(polish=1)], ids=str)
@pytest.mark.parametrize("options", [{}, {"context": 2}], ids=["plain", "context"])
def test_gradients_of_the_inverse_are_those_of_the_loop(solver, options):
    f = maf(7, solver=solver, **options).double()
    z = random(4, 7).double().requires_grad_()
    context = random(4, 2, seed=1).double().requires_grad_() if options else None
    inputs = [t for t in (z, context, *f.parameters()) if t is not None]

    def gradients(call):
        x, log_det = call(z, context)
        loss = (x.sin() * torch.arange(28.0).reshape(4, 7)).sum() + (log_det * torch.arange(4.0)).sum()
        return torch.autograd.grad(loss, inputs)

    for own, expected in zip(gradients(f.inverse), gradients(f.inverse_by_passes), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-9)


SMALL = [name for name in BIJECTORS if "memory" not in name]


@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_first_and_second_order_agree_with_finite_differences(name):
    f, x, context = make(name)
    z = f(x, context)[0][:2].detach().requires_grad_()
    context = None if context is None else context[:2].requires_grad_()
    parameters = dict(f.named_parameters())

    def loss(z, context, *values):
        named = {f"f.{n}": p for n, p in zip(parameters, values, strict=True)}
        x, log_det = torch.func.functional_call(_Inverting(f), named, (z, context))
        return (x * torch.arange(1.0, 1 + x.numel()).reshape(x.shape)).sum() + log_det.sin().sum()

    inputs = (z, context, *(p.detach().requires_grad_() for p in parameters.values()))
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(loss, inputs, fast_mode=True)


class _Inverting(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, z, context):
        return self.f.inverse(z, context)


def test_second_order_gradients_do_not_follow_a_parameter_twice():
    # z itself depends on the parameters and on the context: only what is not through z may be counted in the layer.
    f = maf(3, context=2).double()
    context = random(2, 2).double().requires_grad_()
    weight = f.conditioner.last.weight

    def loss(call):
        z = f(random(2, 3).double(), context)[0] * context.sum() + weight.sum()
        return call(z, context)[0].square().sum()

    for call in (f.inverse, f.inverse_by_passes):
        first = torch.autograd.grad(loss(call), [context, weight], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [context, weight])
        if call == f.inverse:
            expected = (*first, *second)
    for a, b in zip(expected, (*first, *second), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_a_changed_parameter_is_noticed():
    f = maf()
    loss = f.inverse(random(2, 5))[0].sum()
    with torch.no_grad():
        f.conditioner.last.bias.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_reach_only_who_asked():
    f = maf()
    f.conditioner.layers[0].requires_grad_(False)
    f.inverse(random(2, 5))[0].square().sum().backward()
    assert f.conditioner.layers[0].weight.grad is None
    assert f.conditioner.last.weight.grad.any()
    z = random(2, 5).requires_grad_()
    f.requires_grad_(False).inverse(z)[0].sum().backward()
    assert z.grad.any()
    assert not f.inverse(random(2, 5))[0].requires_grad


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize(
    "name",
    ["MAF by Jacobi", "MAF, context, residual, by Jacobi", "Autoregressive spline", "IAF", "Autoregressive, image"],
)
def test_compiles_as_one_graph(name, direction):
    f, x, context = make(name)
    call = getattr(f, direction)
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="eager")(x, context)
    torch.testing.assert_close(compiled, call(x, context))


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("name", SMALL)
def test_vmap_maps_over_batches(name, direction):
    f, x, context = make(name)
    call = getattr(f, direction)
    several = torch.stack([x, 2 * x, -x])
    mapped = torch.func.vmap(lambda batch: call(batch, context))(several)
    for i, batch in enumerate(several):
        torch.testing.assert_close((mapped[0][i], mapped[1][i]), call(batch, context))


def test_vmap_maps_over_contexts_and_parameters():
    f = maf(context=2)
    z, contexts = random(3, 5), random(4, 3, 2, seed=1)
    mapped, _ = torch.func.vmap(lambda c: f.inverse(z, c))(contexts)
    torch.testing.assert_close(mapped[2], f.inverse(z, contexts[2])[0])
    several = {f"f.{n}": torch.stack([p, 0.5 * p]) for n, p in f.named_parameters()}
    call = torch.func.vmap(lambda p: torch.func.functional_call(_Inverting(f), p, (z, contexts[0])))
    torch.testing.assert_close(call(several)[0][0], f.inverse(z, contexts[0])[0])


def test_autocast_changes_nothing():
    f = Chain([maf(6, order=[5, 4, 3, 2, 1, 0]), maf(6, RationalQuadraticSpline(4, 3.0))])
    x = random(50, 6)
    z = f(x)[0].detach()
    for call, given in ((f, x), (f.inverse, z)):
        expected = call(given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = call(given)
            result[0].sum().backward()
        for a, b in zip(result, expected, strict=True):
            assert a.dtype == torch.float32
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    torch.testing.assert_close(result[0], x, rtol=0, atol=2e-4)  # z in float32 says no more of x: float64 is as far off


class _Watched(Lagged):
    def __init__(self, outputs):
        super().__init__(outputs)
        self.casts = []

    def forward(self, x, context=None):
        self.casts.append(torch.is_autocast_enabled("cpu"))
        return super().forward(x)


def test_a_conditioner_under_autocast_is_inverted_as_it_was_run():
    f = perturbed(Autoregressive(_Watched(2), Affine()))
    x = random(4, 1, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = f(x)[0].detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rebuilt, _ = f.inverse(z)
        torch.testing.assert_close(rebuilt, x, rtol=0, atol=1e-5)
        again, _ = f(x)  # must not meet casts of parameters that the inverse made without gradients
    rebuilt.sum().backward()
    assert all(f.conditioner.casts)
    f.zero_grad()
    again.sum().backward()
    assert f.conditioner.convolution.weight.grad.any()


@pytest.mark.parametrize("univariate", [Standardise(), RationalQuadraticSpline()], ids=["MAF", "NSF"])
def test_float32_inverse_holds_five_standard_deviations_out(univariate):
    torch.manual_seed(0)
    layers = []
    for k in range(5):
        order = torch.arange(43) if k % 2 == 0 else torch.arange(42, -1, -1)
        made = MADE(43, (64, 64), univariate.params, order=order)
        nn.init.normal_(made.last.weight, std=0.05)
        layers.append(Autoregressive(made, univariate))
    x = random(200, 43)
    x = 5 * x / x.abs().clamp(min=1e-2)  # every number is 5 or close to it
    with torch.no_grad():
        f = Chain(layers)
        assert (f.inverse(f(x)[0])[0] - x).abs().max() < 1e-5


def test_nan_stays_in_its_row():
    f, z = maf(), random(3, 5)
    z[1, 0] = float("nan")
    for solver in ("sequential", "jacobi", Jacobi(0.0, block=2)):
        f.solver = solver
        assert torch.equal(f.inverse(z)[0].isfinite().all(1), torch.tensor([True, False, True]))
        assert torch.equal(f(z)[1].isfinite(), torch.tensor([True, False, True]))


def test_an_image_is_stepped_through_in_groups():
    f = perturbed(Autoregressive(SteppingPixels(3, 2, 2, outputs=2), Standardise(), "sequential")).double()
    z = random(2, 3, 2, 2).double()
    by_steps = f.solve(z)
    torch.testing.assert_close((by_steps.x, by_steps.log_det), f.inverse_by_passes(z))


class _Wrong(nn.Module):
    def forward(self, x, context=None):
        return x[:, None].repeat(1, 3, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: maf(5)(random(2, 4)), r"Autoregressive expects events of shape \(5\), got \(4,\)"),
        (lambda: maf(5).inverse(random(2, 6)), r"events of shape \(5\), got \(6,\)"),
        (lambda: Inverse(maf(5))(random(2, 6)), r"events of shape \(5\), got \(6,\)"),
        (lambda: maf(5, context=2)(random(2, 5)), "Autoregressive expects a context, got None"),
        (lambda: maf(5, context=2).inverse(random(2, 5)), "Autoregressive expects a context, got None"),
        (lambda: maf(5, context=2)(random(2, 5), random(3, 2)), "context of batch size 2, got 3"),
        (
            lambda: maf(5, context=2).inverse(random(2, 5), random(2, 3)),
            r"MADE expects a context \(B, 2\), got \(2, 3\)",
        ),
        (lambda: maf(5)(random(2, 5), random(2, 3)), r"MADE expects no context, got \(2, 3\)"),
        (lambda: maf(5).inverse(random(2, 5), random(2, 3)), r"MADE expects no context, got \(2, 3\)"),
        (
            lambda: Autoregressive(_Wrong(), Standardise())(random(2, 5)),
            r"conditioner that gives \(2, 2, 5\), got \(2, 3, 5\)",
        ),
        (lambda: maf(solver="newton"), "a solver out of"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
