"""Log-densities as the samplers call them: one number for each point, checked."""

from collections.abc import Callable

import torch
from torch import Tensor

from waveflow.errors import InputError

LogDensity = Callable[[Tensor], Tensor]
"""(N, *event) -> (N,), in nats, up to a constant; minus the energy where there is one. -inf outside the support.

A ``log_prob`` of ``torch.distributions`` serves, with ``validate_args=False`` if points may fall outside its support.
"""


def evaluate(log_density: LogDensity, x: Tensor, name: str = "the log density") -> Tensor:
    """``log_density(x)`` for x (N, *event).

    Raises:
        InputError: if it is no tensor of N floating numbers.
    """
    value = log_density(x)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        came = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{name} expects to be a floating tensor, got {came}")
    if value.shape != x.shape[:1]:
        raise InputError(
            f"{name} of {tuple(x.shape)} expects one number for each point, ({x.shape[0]},), got {tuple(value.shape)}"
        )
    return value


def evaluate_with_gradient(log_density: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    """``log_density(x)`` and its gradient at each point x (N, *event), both detached.

    Raises:
        InputError: as :func:`evaluate`, and if the density cannot be differentiated by x.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = evaluate(log_density, x)
        if not value.requires_grad:
            raise InputError("a sampler that follows gradients expects a log density that is differentiable by x")
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def check_start(value: Tensor, name: str = "the log density") -> Tensor:
    """``value`` (N,), the log-density where N chains start.

    Raises:
        InputError: naming the first chain where it is not finite.
    """
    bad = (~value.isfinite()).nonzero()
    if len(bad):
        first = bad[0].item()
        raise InputError(
            f"{name} expects to be finite where the chains start, got {value[first].item()} in chain {first}"
            f" ({len(bad)} of {len(value)} chains)"
        )
    return value
