"""Dequantisation against probabilities that can be computed."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm

from waveflow.bijectors import Affine, Elementwise
from waveflow.distributions import Flow, StandardNormal, UniformDequantisation, VariationalDequantisation, bits_per_dim
from waveflow.distributions.dequantise import to_unit_interval
from waveflow.errors import InputError
from waveflow.models import NICE, ImageFlow, ImageFlowConfig


def every_image(values):
    """All images of two pixels."""
    return torch.cartesian_prod(torch.arange(values), torch.arange(values)).to(torch.uint8).reshape(-1, 1, 1, 2)


class Steep(ImageFlow):
    """Two independent normal pixels, narrow enough that the density is far from flat within a pixel value."""

    Config = ImageFlowConfig

    @staticmethod
    def bijector(config):
        bijector = Elementwise(Affine("exp"), config.image_shape)
        with torch.no_grad():
            bijector.raw[0] = torch.tensor([-4.0, -5.0])
            bijector.raw[1] = torch.tensor([8.0, 12.0]).log()
        return bijector


def exact_log_prob(images, values=4):
    shift, scale = torch.tensor([-4.0, -5.0]).double(), torch.tensor([8.0, 12.0]).double()
    low, high = (scale * (images.reshape(-1, 2).double() + edge) / values + shift for edge in (0, 1))
    return torch.tensor(norm.cdf(high) - norm.cdf(low)).log().sum(1)


def perturbed(module, size):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return module


@pytest.mark.parametrize("values", [2, 17, 256])
def test_uniform_noise_fills_the_intervals(values):
    images = torch.randint(values, (200, 3, 4, 5), dtype=torch.uint8)
    y, log_q = UniformDequantisation()(images, values)
    assert y.dtype == torch.float32 and (y >= 0).all() and (y < 1).all()
    u = y * values - images
    assert (u > -1e-4).all() and (u < 1 + 1e-4).all() and u.mean().item() == pytest.approx(0.5, abs=0.01)
    assert u.var().item() == pytest.approx(1 / 12, abs=0.002)
    assert log_q.shape == (200,) and not log_q.any()


def test_the_brightest_pixel_stays_below_one():
    almost_one = torch.tensor([1 - 2.0**-24])
    y = to_unit_interval(torch.tensor([255.0]), almost_one, 256)
    assert y < 1 and torch.logit(y).isfinite()


def test_float_images_keep_their_type():
    for dequantise in (UniformDequantisation(), VariationalDequantisation((1, 2, 2), hidden=4).double()):
        y, log_q = dequantise(torch.zeros(3, 1, 2, 2, dtype=torch.float64), 4)
        assert y.dtype == log_q.dtype == torch.float64


def test_variational_noise_starts_uniform():
    dequantise = VariationalDequantisation((1, 8, 8), hidden=4)
    images = torch.randint(256, (50, 1, 8, 8), dtype=torch.uint8)
    y, log_q = dequantise(images, 256)
    torch.testing.assert_close(log_q, torch.zeros(50), atol=1e-4, rtol=0)
    u = y * 256 - images
    assert u.mean().item() == pytest.approx(0.5, abs=0.03) and u.var().item() == pytest.approx(1 / 12, abs=0.01)


def test_variational_density_is_one_of_the_noise():
    """log q is what the drawn u has under a density that integrates to one over the unit square."""
    dequantise = perturbed(VariationalDequantisation((1, 1, 2), hidden=6).double(), 0.3)
    x, values = torch.tensor([[[[3.0, 0.0]]]]).double(), 4

    def density(u):
        v = torch.logit(u)
        context = (x / 1.5 - 1).expand(len(u), -1, -1, -1)
        return dequantise.noise.log_prob(v, context) + (F.softplus(v) + F.softplus(-v)).sum((1, 2, 3))

    with torch.no_grad():
        axis = (torch.arange(150).double() + 0.5) / 150
        grid = torch.cartesian_prod(axis, axis).reshape(-1, 1, 1, 2)
        values_on_grid = density(grid).exp()
        assert values_on_grid.mean().item() == pytest.approx(1, abs=0.005)
        assert values_on_grid.std() > 0.1
        y, log_q = dequantise(x.expand(50, -1, -1, -1), values)
        torch.testing.assert_close(log_q, density(y * values - x), atol=1e-6, rtol=0)


def test_variational_noise_depends_on_the_image():
    dequantise = perturbed(VariationalDequantisation((1, 2, 2), hidden=6), 0.3)
    dark, bright = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 255.0)
    noise = [dequantise(x, 256, torch.Generator().manual_seed(0))[0] * 256 - x for x in (dark, bright)]
    assert (noise[0] - noise[1]).abs().max() > 0.01


def test_bounds_stay_below_the_probability_and_the_trained_one_is_closer():
    images = every_image(4)
    exact = exact_log_prob(images)
    usual = exact > math.log(1e-3)  # the others are never met
    model = Steep(height=1, width=2, values=4, dequantisation="variational", dequantisation_hidden=8)
    model.flow.requires_grad_(False)

    def bound():
        with torch.no_grad():
            many = images[usual].repeat(800, 1, 1, 1)
            return model.log_prob(many).reshape(800, -1).double().mean(0)

    before = bound()  # that of uniform noise
    assert (before < exact[usual] + 0.03).all() and (exact[usual] - before).mean() > 0.2
    optimizer = torch.optim.Adam(model.dequantise.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        (-model.log_prob(images[usual].repeat(12, 1, 1, 1)).mean()).backward()
        optimizer.step()
    after = bound()
    assert (after < exact[usual] + 0.03).all()
    assert (exact[usual] - after).mean() < 0.3 * (exact[usual] - before).mean()


def test_gradients_reach_the_density_and_the_noise():
    model = perturbed(NICE(height=2, width=4, values=4, hidden=(32,), dequantisation="variational"), 0.05)
    images = torch.randint(4, (16, 1, 2, 4), dtype=torch.uint8)
    model.log_prob(images).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_both_call_themselves_bounds():
    assert UniformDequantisation.exact is VariationalDequantisation.exact is Steep.exact is False


def test_an_odd_width_is_refused():
    with pytest.raises(InputError, match=r"images of even width, got \(1, 4, 7\)"):
        VariationalDequantisation((1, 4, 7))


def test_bits_of_a_density_of_standard_normals():
    flow = Flow(StandardNormal(), Elementwise(Affine(), (3,)), (3,))
    expected = 0.5 * math.log2(2 * math.pi)
    assert bits_per_dim(flow.log_prob(torch.zeros(1, 3)), 3).item() == pytest.approx(expected)
