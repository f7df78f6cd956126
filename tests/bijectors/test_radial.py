"""The radial map against the paper's formulas and at its centre."""

import pytest
import torch

from waveflow.bijectors import Radial


def radial(raw_beta: float, features: int = 3) -> Radial:
    layer = Radial(features).double()
    with torch.no_grad():
        layer.centre.copy_(torch.linspace(-1, 1, features))
        layer.raw_beta.fill_(raw_beta)
        layer.raw_alpha.fill_(0.3)
    return layer


@pytest.mark.parametrize("raw_beta", [-40.0, -1.0, 2.0])
def test_is_the_formula_of_the_paper(raw_beta):
    layer = radial(raw_beta)
    x = 2 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z, log_det = layer(x)
    centre, alpha = layer.centre.detach(), torch.log1p(torch.tensor(0.3, dtype=torch.float64).exp())
    # beta from the displacement of one point, then all others must agree with it
    r = (x - centre).norm(dim=1)
    beta = ((z - x)[0] / (x - centre)[0])[0] * (alpha + r[0])
    assert beta > -alpha
    torch.testing.assert_close(z, x + (beta / (alpha + r))[:, None] * (x - centre))
    h, slope = 1 / (alpha + r), -1 / (alpha + r) ** 2
    torch.testing.assert_close(log_det.exp(), (1 + beta * h) ** 2 * (1 + beta * h + beta * slope * r))


@pytest.mark.parametrize("raw_beta", [-1e3, -5.0, 0.0, 5.0, 1e3])
def test_inverse_is_closed(raw_beta):
    layer = radial(raw_beta)
    x = 5 * torch.randn(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[0] = layer.centre.detach()
    z, log_det = layer(x)
    rebuilt, back = layer.inverse(z)
    torch.testing.assert_close(rebuilt, x, atol=1e-10, rtol=0)
    torch.testing.assert_close(back, -log_det, atol=1e-9, rtol=0)


def test_inverse_keeps_its_digits_in_float32_near_the_centre():
    layer = radial(1e3).float()
    x = 1e-3 * torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.centre.zero_()
        torch.testing.assert_close(layer.inverse(layer(x)[0])[0], x, atol=0, rtol=5e-6)


def test_gradients_at_the_centre_are_finite():
    layer = radial(1.0)
    for call in (layer, layer.inverse):
        x = layer.centre.detach()[None].repeat(2, 1).requires_grad_()
        value, log_det = call(x)
        (value.sum() + log_det.sum()).backward()
        assert x.grad.isfinite().all() and layer.centre.grad.isfinite().all()
