"""The planar map against the paper's formulas and at the limit of its invertibility."""

import math

import pytest
import torch

from waveflow.bijectors import Inverse, Planar
from waveflow.bijectors.planar import above_minus_one


def planar(w, u, b) -> Planar:
    layer = Planar(len(w)).double()
    with torch.no_grad():
        layer.w.copy_(torch.tensor(w))
        layer.u.copy_(torch.tensor(u))
        layer.b.fill_(b)
    return layer


def test_is_the_formula_of_the_paper():
    w, u = torch.tensor([[1.0, 2.0], [0.5, -0.25]], dtype=torch.float64)
    layer = planar(w.tolist(), u.tolist(), 0.3)
    product = math.log(1 + math.exp((w @ u).item() + math.log(math.exp(0.99) - 1))) - 0.99
    u_hat = u + (product - w @ u) * w / w.norm() ** 2
    assert abs(w @ u_hat - product) < 1e-12
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z, log_det = layer(x)
    for i in range(20):
        h = torch.tanh(w @ x[i] + 0.3)
        torch.testing.assert_close(z[i], x[i] + u_hat * h)
        jacobian = torch.eye(2, dtype=torch.float64) + torch.outer(u_hat, (1 - h**2) * w)
        torch.testing.assert_close(log_det[i], torch.linalg.det(jacobian).log())


@pytest.mark.parametrize("push", [-1e4, -30.0, -1.0, 1.0, 30.0])
def test_is_invertible_however_u_is_chosen(push):
    layer = planar([1.0, 0.5], [push, push / 2], 0.0)
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z, log_det = layer(x)
    rebuilt, back = layer.inverse(z)
    torch.testing.assert_close(rebuilt, x, atol=1e-8, rtol=0)
    torch.testing.assert_close(back, -log_det, atol=1e-7, rtol=0)
    assert log_det.min() >= math.log(0.01) - 1e-9


def test_inverse_in_float32_is_as_good_as_the_steepest_map_allows():
    layer = planar([3.0, -2.0], [-50.0, 50.0], 0.5).float()
    x = 3 * torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (layer.inverse(layer(x)[0])[0] - x).abs().max() < 100 * 1e-5


def test_the_bound_on_the_product_is_increasing_and_keeps_zero():
    raw = torch.linspace(-100, 100, 4001, dtype=torch.float64)
    product = above_minus_one(raw)
    assert (product.diff() >= 0).all() and product.min() > -0.99 - 1e-12
    assert abs(above_minus_one(torch.tensor(0.0, dtype=torch.float64))) < 1e-15
    torch.testing.assert_close(product[-1], torch.tensor(100.0, dtype=torch.float64), atol=1.0, rtol=0)


def test_inverse_of_it_samples_in_one_pass_the_density_of_the_paper():
    layer = Inverse(planar([2.0, 0.0], [1.5, 0.5], -0.5))
    z = torch.randn(64, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x, log_det = layer.inverse(z)
    again, back = layer(x)
    torch.testing.assert_close(again, z)
    torch.testing.assert_close(back, -log_det)
