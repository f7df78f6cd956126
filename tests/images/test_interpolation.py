"""Interpolation against what a rotation of the pixels says in closed form."""

import math

import pytest
import torch

from waveflow.errors import InputError
from waveflow.images import interpolate, linear, spherical


def pair(*batch):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (2, *batch, 1, 4, 4), generator=generator).byte().unbind()


def test_a_straight_line_through_rotated_pixels_is_one_through_pixels(rotation):
    a, b = pair()
    way = interpolate(rotation(), a, b, steps=5)
    t = torch.linspace(0, 1, 5)[:, None, None, None]
    exact = (1 - t) * (a.double() + 0.5) + t * (b.double() + 0.5)
    assert way.dtype == torch.uint8 and way.shape == (5, 1, 4, 4)
    assert torch.equal(way[0], a) and torch.equal(way[-1], b)
    assert (way - exact + 0.5).abs().max() <= 0.5 + 1e-5


@pytest.mark.parametrize("between", [linear, spherical])
def test_many_ways_at_once_are_each_way_alone(rotation, between):
    a, b = pair(3)
    model = rotation()
    together = interpolate(model, a, b, 4, between=between, batch_size=5)
    assert together.shape == (4, 3, 1, 4, 4) and max(model.batches) == 5
    for i in range(3):
        assert torch.equal(together[:, i], interpolate(model, a[i], b[i], 4, between=between))


@pytest.mark.parametrize("label", [2, torch.tensor([2, 2, 2])])
def test_labels_reach_both_directions(rotation, label):
    a, b = pair(3)
    assert torch.equal(interpolate(rotation(), a, b, label=label), interpolate(rotation(), a, b))


def test_a_circle_keeps_the_length_and_divides_the_angle():
    a, b = torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1))[:, None, None]
    whole = torch.cosine_similarity(a.flatten(1), b.flatten(1)).acos()
    for t in (0.0, 0.25, 0.7, 1.0):
        z = spherical(a, b, torch.tensor(t))
        assert torch.allclose(z.flatten(1).norm(dim=1), a.flatten(1).norm(dim=1))
        angle = torch.cosine_similarity(a.flatten(1), z.flatten(1)).clamp(-1, 1).acos()
        assert torch.allclose(angle, t * whole, atol=1e-6)


def test_lengths_change_evenly_on_a_circle():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 6.0]])
    middle = spherical(a, b, torch.tensor(0.5))
    assert torch.allclose(middle, torch.full((1, 2), 4 / math.sqrt(2)))


@pytest.mark.parametrize("b", [[3.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
def test_where_there_is_no_circle_the_line_is_straight(b):
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([b])
    assert torch.allclose(spherical(a, b, torch.tensor(0.25)), 0.75 * a + 0.25 * b)


class Sampler:
    def sample(self, n):
        pass


def test_bad_input_is_refused(rotation):
    a, b = pair()
    with pytest.raises(InputError, match="at least 2 steps, the first and the last image, got 1"):
        interpolate(rotation(), a, b, steps=1)
    with pytest.raises(InputError, match=r"one shape \(C, H, W\).* got \(1, 4, 4\) and \(1, 4, 3\)"):
        interpolate(rotation(), a, b[..., :3])
    with pytest.raises(InputError, match=r"got \(4, 4\) and \(4, 4\)"):
        interpolate(rotation(), a[0], b[0])
    with pytest.raises(InputError, match="interpolation expects a flow, which has latents, got a Sampler"):
        interpolate(Sampler(), a, b)
    with pytest.raises(InputError, match=r"a label for each of 1 images, got \(2,\)"):
        interpolate(rotation(), a, b, label=torch.tensor([1, 1]))
    with pytest.raises(InputError, match="a label of at most 64 bits, got 18446744073709551616"):
        interpolate(rotation(), a, b, label=2**64)
    with pytest.raises(InputError, match="batch size of at least 1, got 0"):
        interpolate(rotation(), a, b, batch_size=0)
    broken = rotation()
    with torch.no_grad():
        broken.q[0, 0] = math.inf
    with pytest.raises(FloatingPointError, match="Rotation encoded images to latents that are not finite"):
        interpolate(broken, a, b)
