"""The Sylvester map against dense matrices, the planar map, and in extreme settings."""

import pytest
import torch

from waveflow.bijectors import Planar, Sylvester


def sylvester(features: int, hidden: int, scale: float, seed: int = 0) -> Sylvester:
    generator = torch.Generator().manual_seed(seed)
    layer = Sylvester(features, hidden, generator).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("hidden", [1, 3, 5])
def test_is_the_formula_of_the_paper(hidden):
    layer, x = sylvester(5, hidden, 0.7), normal(6, 5)
    with torch.no_grad():
        z, log_det = layer(x)
        q, outer, inner, b, _ = layer._constrained(torch.float64)
    torch.testing.assert_close(q.T @ q, torch.eye(hidden, dtype=torch.float64))
    assert torch.equal(outer, outer.triu()) and torch.equal(inner, inner.triu())
    for i in range(6):
        h = torch.tanh(inner @ q.T @ x[i] + b)
        torch.testing.assert_close(z[i], x[i] + q @ outer @ h)
        dense = torch.eye(5, dtype=torch.float64) + q @ outer @ torch.diag(1 - h**2) @ inner @ q.T
        torch.testing.assert_close(log_det[i], torch.linalg.slogdet(dense)[1])


def test_with_one_hidden_unit_it_is_a_planar_map():
    layer, planar = sylvester(4, 1, 0.5), Planar(4).double()
    with torch.no_grad():
        q, _, inner, b, _ = layer._constrained(torch.float64)
        planar.w.copy_(q[:, 0] * inner[0, 0])
        planar.b.copy_(b[0])
        raw = layer.outer[0, 0]  # the product of both maps is bounded by the same function
        planar.u.copy_(q[:, 0] * raw / inner[0, 0])
        x = normal(10, 4)
        for a, b in zip(layer(x), planar(x), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("scale", [0.5, 3.0, 10.0])
def test_inverse_is_exact(scale):
    layer, x = sylvester(8, 6, scale), normal(200, 8)
    with torch.no_grad():
        z, log_det = layer(x)
        rebuilt, back = layer.inverse(z)
        again, _ = layer(rebuilt)
    torch.testing.assert_close(again, z, atol=1e-6, rtol=1e-9)
    if scale < 10:
        torch.testing.assert_close(rebuilt, x, atol=1e-6, rtol=0)
        torch.testing.assert_close(back, -log_det, atol=1e-5, rtol=0)


def test_basis_changes_smoothly_with_its_parameter():
    layer = Sylvester(3, 2).double()
    with torch.no_grad():
        layer.basis.copy_(torch.tensor([[1e-9, 0.3], [1.0, 0.2], [0.5, 1.0]]))
        before = layer._constrained(torch.float64)[0]
        layer.basis[0, 0] = -1e-9
        torch.testing.assert_close(layer._constrained(torch.float64)[0], before, atol=1e-8, rtol=0)


@pytest.mark.parametrize("hidden", [0, 4])
def test_too_many_hidden_units_are_refused(hidden):
    with pytest.raises(ValueError, match=f"Sylvester expects 1 to 3 hidden units for 3 features, got {hidden}"):
        Sylvester(3, hidden)
