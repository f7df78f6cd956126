"""The compiled inverse of a MADE's linear map against steps in PyTorch and the forward direction."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from waveflow.bijectors import Affine, Autoregressive, Shift, Standardise
from waveflow.bijectors import solvers as solvers_module
from waveflow.bijectors.solvers import Sequential, step
from waveflow.errors import InputError
from waveflow.kernels import made_inverse
from waveflow.networks import MADE


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def perturbed(module: nn.Module, scale: float = 0.3) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return module


@pytest.fixture
def calls(monkeypatch):
    """Shapes of what the compiled inverse is given."""
    seen, invert = [], made_inverse.invert
    monkeypatch.setattr(made_inverse, "invert", lambda z, *rest: seen.append(tuple(z.shape)) or invert(z, *rest))
    return seen


NETWORKS = {
    "two layers": (9, {"hidden": (30, 21)}),
    "one layer": (9, {"hidden": (33,)}),
    "three layers, order": (5, {"hidden": (7, 16, 9), "order": [3, 0, 4, 1, 2]}),
    "narrow": (9, {"hidden": (3, 2)}),
    "one unit": (4, {"hidden": (1,)}),
    "context": (6, {"hidden": (20, 14), "context": 3}),
    "context, order": (3, {"hidden": (8,), "context": 1, "order": [2, 0, 1]}),
    "one feature": (1, {"hidden": (8,)}),
    "one feature, context": (1, {"hidden": (8,), "context": 2}),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("univariate", [Standardise("gentle"), Affine("tanh_exp")], ids=str)
@pytest.mark.parametrize("batch", [1, 64, 135])
def test_equals_steps_and_inverts_the_map(name, univariate, batch, calls):
    features, options = NETWORKS[name]
    made = perturbed(MADE(features, outputs=2, **options)).double()
    x = random(batch, features, seed=2).double()
    context = random(batch, options["context"], seed=3).double() if "context" in options else None
    z, log_derivative = univariate(x, made(x, context))
    solution = Sequential()(made, univariate, z, context)
    assert calls == [(batch, features)]
    torch.testing.assert_close(solution.x, x, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(solution.log_det, -log_derivative.sum(1), rtol=1e-11, atol=1e-11)
    for found, stepped in zip(solution[:2], step(made, univariate, z, context), strict=True):
        torch.testing.assert_close(found, stepped, rtol=1e-12, atol=1e-12)


def test_is_as_exact_in_float32_as_steps(calls):
    made, univariate = perturbed(MADE(20, (100, 100), 2), 0.02), Standardise("gentle")
    x = 3 * random(500, 20)
    z = univariate(x, made(x))[0].detach()
    solved, stepped = Sequential()(made, univariate, z, None), step(made, univariate, z, None)
    assert len(calls) == 1 and solved.x.dtype == solved.log_det.dtype == torch.float32
    error, of_steps = ((found - x).abs().max() for found in (solved.x, stepped[0]))
    assert error < 1.5 * of_steps < 1e-4
    torch.testing.assert_close(solved.log_det, stepped[1], rtol=1e-5, atol=1e-5)


def test_what_is_not_finite_stays_in_its_row_and_is_handed_on():
    made, univariate = perturbed(MADE(6, (20, 20), 2)), Standardise("gentle")
    z = random(70, 6)
    z[3, 2], z[66, 0] = float("nan"), float("inf")
    solution, stepped = Sequential()(made, univariate, z, None), step(made, univariate, z, None)
    for found, expected in zip(solution[:2], stepped, strict=True):
        assert torch.equal(found.isfinite(), expected.isfinite())
        finite = expected.isfinite()
        torch.testing.assert_close(found[finite], expected[finite])
    assert solution.x[3, 2:].isnan().all()


def test_z_may_be_empty_or_laid_out_in_any_way(calls):
    made, univariate = perturbed(MADE(4, (20,), 2)), Affine("gentle")
    assert Sequential()(made, univariate, random(0, 4), None).x.shape == (0, 4)
    z = random(5, 4)
    expected = Sequential()(made, univariate, z, None).x
    assert torch.equal(Sequential()(made, univariate, z.t().contiguous().t(), None).x, expected)
    assert len(calls) == 3


def test_weights_are_read_at_every_call():
    made, univariate = perturbed(MADE(4, (20,), 2)), Standardise("gentle")
    z = random(5, 4)
    before = Sequential()(made, univariate, z, None).x
    perturbed(made)
    after = Sequential()(made, univariate, z, None).x
    torch.testing.assert_close(after, step(made, univariate, z, None)[0])
    assert not torch.isclose(after[:, 1:], before[:, 1:]).any()


def test_gradients_go_through(calls):
    f = Autoregressive(perturbed(MADE(4, (20,), 2)).double(), Standardise("gentle"))
    z = random(3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(f.inverse, z)
    assert calls


@pytest.mark.parametrize(
    ("options", "univariate", "dtype"),
    [
        ({"residual": True}, Standardise(), torch.float32),
        ({"activation": F.silu}, Standardise(), torch.float32),
        ({}, Standardise("exp"), torch.float32),
        ({"outputs": 1}, Shift(), torch.float32),
        ({}, Standardise(), torch.bfloat16),
    ],
    ids=["residual", "silu", "exp", "shift", "another dtype"],
)
def test_what_is_not_compiled_is_stepped(options, univariate, dtype, calls):
    made = perturbed(MADE(5, (16,), **options))
    z = random(7, 5).to(dtype)
    x = Sequential()(made, univariate, z, None).x
    assert x.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(univariate(x, made(x))[0], z, rtol=tolerance, atol=tolerance)
    assert not calls


def test_large_networks_and_autocast_are_stepped(calls, monkeypatch):
    made, univariate = perturbed(MADE(5, (16,))), Standardise()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Sequential()(made, univariate, random(3, 5), None)
    monkeypatch.setattr(solvers_module, "_LARGEST", 100)
    Sequential()(made, univariate, random(3, 5), None)
    assert not calls


@pytest.mark.parametrize(("features", "contexts"), [(4, 3), (6, 3), (5, 2)])
def test_sizes_that_do_not_fit_are_named(features, contexts):
    network = MADE(5, (16,), context=2).rectified(random(contexts, 2))
    with pytest.raises(InputError, match=r"expects \(B, 5\) and biases for 1 or B items"):
        made_inverse.invert(random(3, features), *network, 2.0, True)
