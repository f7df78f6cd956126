"""How an autoregressive map is inverted: place by place, or all places at once until nothing changes."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from waveflow.bijectors.base import sum_event, zero_log_det
from waveflow.bijectors.univariate import Affine, Standardise, Univariate
from waveflow.context import Context
from waveflow.errors import InputError


class Solution(NamedTuple):
    """An inverse that was found, and how.

    Attributes:
        x: (B, *event).
        log_det: (B,), of the inverse.
        rounds: passes of the whole network that it took; a stepper's steps are not counted.
        residual: by how much the last round still changed any number of x, relative to max(1, |x|); NaN where there
            was no round. Above the tolerance where as many rounds were made as there are places: x is exact then.
    """

    x: Tensor
    log_det: Tensor
    rounds: int
    residual: float


class Solver(Protocol):
    """Solves ``univariate(x, conditioner(x, context)) = z`` for x, without gradients."""

    def __call__(self, conditioner: nn.Module, univariate: Univariate, z: Tensor, context: Context) -> Solution: ...


@dataclass(frozen=True)
class Sequential:
    """Place by place with the conditioner's stepper: exact, and for a MADE at the cost of about one pass.

    Linear maps given by a MADE of ReLUs are solved by a compiled loop on a CPU, if the network is not too large for
    its caches; it runs on one thread.

    Args:
        polish: rounds of x <- x + (z - univariate(x)) / univariate'(x) at the end, each a pass of the network, which
            bring x to where the forward direction, with its rounding, gives z. Two rounds about halve the typical
            error in float32; more cannot be had, since z is rounded too.

    Raises:
        ValueError: for a negative ``polish``.
    """

    polish: int = 0

    def __post_init__(self):
        if self.polish < 0:
            raise ValueError(f"Sequential expects at least 0 rounds of polish, got {self.polish}")

    @torch.no_grad()
    def __call__(self, conditioner: nn.Module, univariate: Univariate, z: Tensor, context: Context) -> Solution:
        x, log_det = _solve_compiled(conditioner, univariate, z, context) or step(conditioner, univariate, z, context)
        if not self.polish:
            return Solution(x, log_det, 0, float("nan"))
        for _ in range(self.polish):
            seen, log_derivative = univariate(x, conditioner(x, context))
            before, x = x, x + (z - seen) * (-log_derivative).exp().to(x.dtype)
        return Solution(x, -sum_event(log_derivative), self.polish, _change(x, before).max().item() if len(x) else 0.0)


def step(conditioner: nn.Module, univariate: Univariate, z: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """x and the log-det of the inverse, place by place, without gradients."""
    order = order_of(conditioner, z)
    x = torch.empty_like(z, memory_format=torch.contiguous_format)
    log_det = zero_log_det(z)
    # Steps are small and what they cost is mostly bookkeeping, of which inference mode needs less. Not under
    # autocast, which would keep casts of weights made here and hand them to those who want gradients.
    with torch.inference_mode(not torch.is_autocast_enabled(z.device.type)):
        values, log_derivatives = [], []
        stepper = conditioner.stepper(z.shape[0], context)
        for row in z.flatten(1).t()[order].unbind():  # (B,) or (k, B)
            value, log_derivative = univariate.inverse(row.t(), stepper.params())
            stepper.push(value)
            values.append(value.t())
            log_derivatives.append(log_derivative.t())
        x.flatten(1)[:, order.flatten()] = torch.stack(values).flatten(0, -2).t()
        log_det += torch.stack(log_derivatives).flatten(0, -2).sum(0)
    return x, log_det


_BOUNDS = {"gentle": 2.0, "tanh_exp": 5.0}
_LARGEST = 2**20  # weights, 4 MiB: beyond, what they take to be read for every tile costs more than bookkeeping


def _solve_compiled(
    conditioner: nn.Module, univariate: Univariate, z: Tensor, context: Context
) -> tuple[Tensor, Tensor] | None:
    if type(univariate) not in (Affine, Standardise) or univariate.scale not in _BOUNDS:
        return None
    if z.device.type != "cpu" or torch.is_autocast_enabled("cpu") or not hasattr(conditioner, "rectified"):
        return None
    if conditioner.outputs != univariate.params:
        return None
    network = conditioner.rectified(context)
    if network is None or network.weights.dtype != z.dtype or len(network.weights) > _LARGEST:
        return None
    from waveflow.kernels.made_inverse import invert  # numba takes half a second to import

    return invert(z, *network, _BOUNDS[univariate.scale], type(univariate) is Standardise)


@dataclass(frozen=True)
class Jacobi:
    """All places at once: x <- univariate.inverse(z, conditioner(x)) until x stays as it is.

    After n rounds the first n places are exact whatever the start, so that one round for each place always suffices; a
    tolerance is usually met after far fewer (Song et al., 2021; arXiv:2002.03629).

    Args:
        tolerance: stop when a round changed no number by more than this, relative to max(1, |x|). 0 asks for no change
            at all and gives what the full number of rounds would.
        block: places that are solved together, one block after the other (Gauss-Seidel over blocks); None for all.

    Raises:
        ValueError: for a negative tolerance, or a block below 1.
    """

    tolerance: float = 1e-6
    block: int | None = None

    def __post_init__(self):
        if not self.tolerance >= 0:
            raise ValueError(f"Jacobi expects a tolerance of at least 0, got {self.tolerance}")
        if self.block is not None and self.block < 1:
            raise ValueError(f"Jacobi expects blocks of at least 1 place, got {self.block}")

    @torch.no_grad()
    def __call__(self, conditioner: nn.Module, univariate: Univariate, z: Tensor, context: Context) -> Solution:
        x = z
        rounds, changes = 0, [0.0]
        order = order_of(conditioner, z)
        for places in order.split(self.block or len(order)):
            free = torch.zeros(z.shape[1:].numel(), dtype=torch.bool, device=z.device)
            free[places.flatten()] = True
            free = free.reshape(1, *z.shape[1:])
            x, log_derivative, used, change = _iterate(
                conditioner, univariate, z, context, x, free, len(places), self.tolerance
            )
            rounds, changes = rounds + used, [*changes, change]
        return Solution(x, sum_event(log_derivative), rounds, torch.tensor(changes).max().item())  # NaN if any is


@dataclass(frozen=True)
class Auto:
    """:class:`Sequential` on a CPU if the conditioner has a stepper, else ``Jacobi(tolerance=0)``: both exact.

    Off the CPU the many small products of a stepper take as long as as many passes, of which Jacobi needs fewer.
    """

    def __call__(self, conditioner: nn.Module, univariate: Univariate, z: Tensor, context: Context) -> Solution:
        steps = z.device.type == "cpu" and hasattr(conditioner, "stepper")
        return (Sequential() if steps else Jacobi(tolerance=0.0))(conditioner, univariate, z, context)


SOLVERS = {"sequential": Sequential(), "jacobi": Jacobi(), "auto": Auto()}
"""Solvers by name, with their defaults."""


def find_solver(solver: str | Solver, owner: str) -> Solver:
    """The solver of that name, or ``solver`` itself if it is one.

    Raises:
        InputError: for an unknown name, on behalf of ``owner``.
    """
    if isinstance(solver, str) and solver not in SOLVERS:
        raise InputError(f"{owner} expects a solver out of {sorted(SOLVERS)}, got {solver!r}")
    return SOLVERS[solver] if isinstance(solver, str) else solver


def order_of(conditioner: nn.Module, z: Tensor) -> Tensor:
    """Flat positions of an event of ``z`` from first to last, (steps,) or, where one step gives several, (steps, k)."""
    if hasattr(conditioner, "positions"):
        return conditioner.positions(tuple(z.shape[1:])).to(z.device)
    return torch.arange(z.shape[1:].numel(), device=z.device)


def _iterate(
    conditioner: nn.Module,
    univariate: Univariate,
    z: Tensor,
    context: Context,
    x: Tensor,
    free: Tensor,
    rounds: int,
    tolerance: float,
) -> tuple[Tensor, Tensor, int, float]:
    # What is not solved yet may be anything; it must not overflow, since a masked weight times infinity is NaN.
    limit = torch.finfo(z.dtype).max ** 0.25
    for used in range(1, rounds + 1):  # noqa: B007 returned
        seen = x.nan_to_num(0.0, limit, -limit).clamp(-limit, limit)
        new, log_derivative = univariate.inverse(z, conditioner(seen, context))
        change = torch.where(free, _change(new, x), 0.0)
        x = torch.where(free, new, x)
        largest = change.max().item() if change.numel() else 0.0
        if largest <= tolerance:
            break
    return x, log_derivative, used, largest


def _change(new: Tensor, old: Tensor) -> Tensor:
    return (new - old).abs() / new.abs().clamp(min=1)
