"""Every solver against a loop of whole passes written out, and its report."""

import dataclasses

import pytest
import torch
from registry_autoregressive import Lagged, Pixels, SteppingPixels
from torch import nn

from waveflow.bijectors import Affine, Autoregressive, RationalQuadraticSpline, Standardise
from waveflow.bijectors.solvers import SOLVERS, Auto, Jacobi, Sequential
from waveflow.networks import MADE


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def perturbed(module: nn.Module, scale: float = 0.3) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return module


def naive_inverse(conditioner, univariate, z, context=None):
    """Number by number, as often as there are numbers; the order is found by the network itself settling down."""
    x = torch.zeros_like(z)
    for _ in range(z[0].numel()):
        x, log_derivative = univariate.inverse(z, conditioner(x, context))
    return x, log_derivative.flatten(1).sum(1)


CASES = {
    "vectors": lambda: (MADE(7, hidden=(24, 20), outputs=2, order=[3, 6, 0, 2, 5, 1, 4]), Standardise(), (7,), None),
    "residual, context": lambda: (MADE(15, (32,), 2, context=2, residual=True), Affine(), (15,), (2,)),
    "spline": lambda: (MADE(7, (24,), outputs=8), RationalQuadraticSpline(3, 4.0), (7,), None),
    "one feature": lambda: (MADE(1, (8,), outputs=2), Standardise(), (1,), None),
    "image": lambda: (SteppingPixels(2, 2, 3, outputs=2), Standardise(), (2, 2, 3), None),
}
EXACT = [Sequential(), Sequential(polish=1), Jacobi(0.0), Jacobi(0.0, block=1), Jacobi(0.0, block=4), Auto()]


def make(name: str):
    torch.manual_seed(0)
    conditioner, univariate, event, context = CASES[name]()
    conditioner = perturbed(conditioner).double()
    z = random(6, *event, seed=2).double()
    return conditioner, univariate, z, None if context is None else random(6, *context, seed=3).double()


@pytest.mark.parametrize("solver", EXACT, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_equals_whole_passes(name, solver):
    conditioner, univariate, z, context = make(name)
    expected, log_det = naive_inverse(conditioner, univariate, z, context)
    solution = solver(conditioner, univariate, z, context)
    torch.testing.assert_close(solution.x, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(solution.log_det, log_det, rtol=1e-10, atol=1e-10)
    assert not solution.x.requires_grad and solution.x.is_contiguous()


@pytest.mark.parametrize("features", [5, 6, 7, 12, 13])
def test_stepper_at_the_borders_of_its_groups(features):
    made, univariate = perturbed(MADE(features, (40, 7), 2)).double(), Standardise()
    z = random(3, features).double()
    torch.testing.assert_close(Sequential()(made, univariate, z, None).x, naive_inverse(made, univariate, z)[0])


def test_z_may_be_laid_out_in_any_way():
    conditioner, univariate, z, _ = make("vectors")
    turned = z.t().contiguous().t()
    for solver in EXACT:
        expected = solver(conditioner, univariate, z, None).x
        torch.testing.assert_close(solver(conditioner, univariate, turned, None).x, expected, rtol=1e-12, atol=1e-12)


class _Counting(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.calls = network, 0
        self.positions = network.positions

    def forward(self, x, context=None):
        self.calls += 1
        return self.network(x, context)


def test_jacobi_reports_rounds_and_change():
    conditioner, univariate, z, _ = make("vectors")
    counting = _Counting(conditioner)
    exact = naive_inverse(conditioner, univariate, z)[0]
    before = 0
    for tolerance in (1e-1, 1e-4, 1e-8):
        counting.calls = 0
        solution = Jacobi(tolerance)(counting, univariate, z, None)
        assert solution.rounds == counting.calls
        assert before < solution.rounds <= 7
        assert solution.residual <= tolerance
        assert (solution.x - exact).abs().max() < 20 * tolerance
        before = solution.rounds


def test_jacobi_needs_one_round_a_place_at_most():
    # Each place depends strongly on the one before: nothing converges before it is reached.
    class Chained(nn.Module):
        def forward(self, x, context=None):
            return torch.stack([3 * torch.roll(x, 1, 1) * (torch.arange(9) > 0), torch.zeros_like(x)], 1)

    z = random(2, 9)
    solution = Jacobi(0.0)(Chained(), Standardise("exp"), z, None)
    expected = [z[:, 0]]
    for i in range(1, 9):
        expected.append(z[:, i] + 3 * expected[-1])
    torch.testing.assert_close(solution.x, torch.stack(expected, 1))
    assert solution.rounds == 9
    assert Jacobi(0.0, block=3)(Chained(), Standardise("exp"), z, None).rounds == 9


def test_jacobi_survives_what_overflows_on_the_way():
    class Explosive(nn.Module):
        def forward(self, x, context=None):
            before = torch.roll(x, 1, 1) * (torch.arange(8) > 0)
            masked = x @ torch.zeros(8, 8)  # as in a masked product: infinity would become NaN everywhere
            return torch.stack([masked, 4 * before.square() - 8], 1)

    x, univariate = 0.5 + 0.1 * random(4, 8), Standardise("exp")
    z = univariate(x, Explosive()(x))[0]  # hundreds, where Jacobi starts: e^(4 z^2) is beyond float32
    assert univariate.inverse(z, Explosive()(z))[0].isinf().any()
    torch.testing.assert_close(Jacobi(0.0)(Explosive(), univariate, z, None).x, x)


def test_what_cannot_be_solved_is_not_called_solved():
    made = perturbed(MADE(4, (8,), 2))
    z = random(3, 4)
    z[1, 2] = float("nan")
    solution = Jacobi(1e-3, block=2)(made, Standardise(), z, None)
    assert solution.residual != solution.residual  # NaN
    assert torch.equal(solution.x.isfinite().all(1), torch.tensor([True, False, True]))


def test_polish_lessens_the_error_of_float32():
    torch.manual_seed(0)
    made, univariate = MADE(30, (128, 128), 2), Standardise()
    nn.init.normal_(made.last.weight, std=0.1)
    nn.init.constant_(made.last.bias[30:], -1.5)  # steep: a step in the wrong scale would show
    x = 3 * random(500, 30)
    z = univariate(x, made(x))[0].detach()
    errors = [(Sequential(n)(made, univariate, z, None).x - x).abs().mean() for n in (0, 2)]
    assert errors[1] < 0.8 * errors[0]
    report = Sequential(2)(made, univariate, z, None)
    assert report.rounds == 2 and 0 < report.residual < 1e-5
    assert Sequential()(made, univariate, z, None).rounds == 0


def test_auto_steps_where_it_can():
    class Forbidden(nn.Module):
        def forward(self, x, context=None):
            raise AssertionError("a whole pass")

        def stepper(self, batch, context=None):
            return perturbed(MADE(3, (8,), 2)).stepper(batch, context)

    assert Auto()(Forbidden(), Standardise(), random(2, 3), None).rounds == 0
    assert 0 < Auto()(Pixels(1, 2, 2, outputs=2), Standardise(), random(2, 1, 2, 2), None).rounds <= 4
    assert Auto()(Lagged(2), Standardise(), random(2, 1, 5), None).rounds <= 5


def test_solvers_are_chosen_by_name_or_value_and_changed_at_will():
    f = Autoregressive(MADE(3, (8,), 2), Standardise(), "jacobi")
    assert f.solver == Jacobi()
    f.solver = "sequential"
    assert f.solver == Sequential()
    f.solver = Jacobi(tolerance=1e-3, block=2)
    assert f.solve(random(2, 3)).rounds >= 2
    with pytest.raises(ValueError, match=r"solver out of \['auto', 'jacobi', 'sequential'\], got 'newton'"):
        f.solver = "newton"
    for solver in SOLVERS.values():
        assert dataclasses.is_dataclass(solver)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Jacobi(-1.0), "tolerance of at least 0, got -1.0"),
        (lambda: Jacobi(float("nan")), "tolerance of at least 0, got nan"),
        (lambda: Jacobi(block=0), "blocks of at least 1 place, got 0"),
        (lambda: Sequential(polish=-1), "at least 0 rounds of polish, got -1"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
