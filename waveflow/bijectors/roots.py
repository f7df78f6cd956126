"""Roots of increasing functions, for maps whose inverse has no formula."""

from collections.abc import Callable

import torch
from torch import Tensor

_ROUNDS = {torch.float32: 24, torch.float64: 48}

Increasing = Callable[[Tensor], tuple[Tensor, Tensor]]


def increasing_root(function: Increasing, lower: Tensor, upper: Tensor) -> Tensor:
    """Where increasing functions are zero, elementwise, by Newton steps that bisection keeps within bounds.

    The number of rounds is fixed, so that the computation does not depend on the data. Gradients are those of the
    implicit function theorem, with respect to all that ``function`` depends on, of first and second order.

    Args:
        function: t -> (value, slope), both of the shape of t; slope is positive.
        lower: where no function is positive; float32 or wider.
        upper: where no function is negative.
    """
    with torch.no_grad():
        root = _solve(function, lower.detach(), upper.detach())
    return with_implicit_gradients(lambda t: _newton_step(function, t), root) if torch.is_grad_enabled() else root


def with_implicit_gradients(newton_step: Callable[[Tensor], Tensor], root: Tensor) -> Tensor:
    """The same numbers, now with their derivatives of first and second order.

    Args:
        newton_step: t -> J^-1 f(t), f differentiable in all it depends on, J^-1 a constant.
        root: where f is zero.
    """
    # Each step with a constant J makes one more order of derivatives right; the values are kept as they are.
    root = root.detach()
    for _ in range(2):
        step = newton_step(root)
        root = root - (step - step.detach())
    return root


def _newton_step(function: Increasing, t: Tensor) -> Tensor:
    value, slope = function(t)
    return value / slope.detach()


def _solve(function: Increasing, lower: Tensor, upper: Tensor) -> Tensor:
    t = best = (lower + upper) / 2
    last_step, least = upper - lower, torch.full_like(t, torch.inf)
    for _ in range(_ROUNDS[t.dtype]):
        value, slope = function(t)
        best, least = torch.where(value.abs() < least, t, best), torch.minimum(value.abs(), least)
        lower, upper = torch.where(value <= 0, t, lower), torch.where(value >= 0, t, upper)
        newton = t - value / slope
        # Steps that do not halve are left to bisection, which always halves.
        trusted = (newton >= lower) & (newton <= upper) & (2 * (newton - t).abs() <= last_step)
        following = torch.where(trusted, newton, (lower + upper) / 2)
        last_step, t = (following - t).abs(), following
    return best
