"""Roots of increasing functions against formulas."""

import pytest
import torch

from waveflow.bijectors.roots import increasing_root, with_implicit_gradients


def cubic(a, c):
    return lambda t: (t**3 + a * t - c, 3 * t**2 + a)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_finds_the_root_of_a_cubic_from_far_away(dtype, tolerance):
    root = torch.linspace(-3, 3, 101, dtype=dtype)
    a = torch.tensor(0.5, dtype=dtype)
    found = increasing_root(cubic(a, root**3 + a * root), torch.full_like(root, -1e4), torch.full_like(root, 1e4))
    torch.testing.assert_close(found, root, atol=tolerance, rtol=tolerance)


def test_finds_roots_where_newton_alone_would_leave():
    goal = torch.linspace(-0.999, 0.999, 201, dtype=torch.float64)

    def function(t):
        return t.atan() * 2 / torch.pi - goal, 2 / torch.pi / (1 + t * t)

    found = increasing_root(function, torch.full_like(goal, -1e3), torch.full_like(goal, 1e3))
    torch.testing.assert_close(found, (goal * torch.pi / 2).tan(), rtol=1e-9, atol=1e-9)


def test_is_content_with_bounds_that_meet():
    at = torch.tensor([2.0, -1.0])
    assert torch.equal(increasing_root(lambda t: (t - at, torch.ones_like(t)), at, at), at)


def test_derivatives_are_those_of_the_implicit_function_theorem():
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    c = torch.tensor(1.9, dtype=torch.float64, requires_grad=True)
    t = increasing_root(cubic(a, c), torch.tensor(-9.0, dtype=torch.float64), torch.tensor(9.0, dtype=torch.float64))
    by_a, by_c = torch.autograd.grad(t, (a, c), create_graph=True)
    slope = 3 * t**2 + a
    torch.testing.assert_close((by_a, by_c), (-t / slope, 1 / slope))
    by_cc, by_ca = torch.autograd.grad(by_c, (c, a))
    # d/dc and d/da of 1 / (3 t^2 + a)
    torch.testing.assert_close(by_cc, -6 * t * by_c / slope**2)
    torch.testing.assert_close(by_ca, -(6 * t * by_a + 1) / slope**2)


def test_derivatives_leave_the_value_as_it_is():
    c = torch.tensor([2.0, 3.0], requires_grad=True)
    root = torch.tensor([1.41421, 1.73205])
    assert torch.equal(with_implicit_gradients(lambda t: (t * t - c) / (2 * root), root), root)


def test_never_looks_outside_the_bounds():
    visited = []

    def ledge(t):
        """Rises by slope 1 to (0.88, -0.02), hardly any more to (0.99, -0.009), then steeply."""
        visited.append(t)
        value = torch.minimum(t - 0.9, 0.1 * t - 0.108)
        steep = t > 0.99
        return torch.where(steep, 10 * t - 9.909, value), torch.where(steep, 10.0, torch.where(t > 0.88, 0.1, 1.0))

    with torch.no_grad():
        found = increasing_root(ledge, torch.zeros(1), torch.ones(1))
    torch.testing.assert_close(found, torch.tensor([0.9909]))
    assert min(visited) >= 0 and max(visited) <= 1
