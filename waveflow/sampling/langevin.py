"""Langevin dynamics: noise that drifts along the gradient of the log-density."""

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from waveflow.errors import InputError
from waveflow.sampling.density import LogDensity, check_start, evaluate_with_gradient
from waveflow.sampling.kernel import Kernel, State, always_accepted
from waveflow.sampling.metropolis import accept_or_stay, choose


class _Langevin(Kernel):
    def __init__(self, log_target: LogDensity, step_size: float):
        if not 0 < step_size < math.inf:
            raise InputError(f"{type(self).__name__} expects a step size that is positive and finite, got {step_size}")
        self.log_target = log_target
        self.step_size = step_size

    def scaled(self, factor: float) -> Self:
        """The same kernel with a step size ``factor`` times as large."""
        return type(self)(self.log_target, self.step_size * factor)

    def prepare(self, state: State) -> State:
        log_prob, gradient = evaluate_with_gradient(self.log_target, _floating(self, state.x))
        return state._replace(log_prob=check_start(log_prob), memory=gradient)

    def _mean(self, x: Tensor, gradient: Tensor) -> Tensor:
        return x + 0.5 * self.step_size * gradient

    def _propose(self, state: State, generator: torch.Generator | None) -> Tensor:
        return self._mean(state.x, state.memory) + math.sqrt(self.step_size) * _noise(state.x, generator)


class Langevin(_Langevin):
    r"""Unadjusted Langevin dynamics.

    .. math::
        s' = s + \frac{\epsilon}{2} \nabla \log p(s) + \sqrt{\epsilon} \, \xi, \qquad \xi \sim N(0, I)

    Nothing is ever refused, and so the chain's distribution is off by O(epsilon): of N(0, 1) its variance is
    1 / (1 - epsilon / 4) (Roberts & Tweedie, 1996). :class:`MALA` is free of that.

    Args:
        log_target: log p, up to a constant, differentiable.
        step_size: epsilon.

    Raises:
        InputError: if the step size is not positive.
        FloatingPointError: (from ``step``) if a chain runs away.
    """

    def step(self, state: State, generator: torch.Generator | None = None) -> State:
        x = self._propose(state, generator)
        log_prob, gradient = evaluate_with_gradient(self.log_target, x)
        _check_finite(self, x, gradient, self.step_size)
        return state._replace(x=x, log_prob=log_prob, memory=gradient, **always_accepted(x))


class MALA(_Langevin):
    r"""Metropolis-adjusted Langevin algorithm: a Langevin step is the proposal, accepted or not.

    .. math::
        \log q(s \to s') = -\frac{1}{2 \epsilon} \left\| s' - s - \frac{\epsilon}{2} \nabla \log p(s) \right\|^2 + c

    Roberts & Tweedie, 1996; an acceptance of 0.574 is near the best (Roberts & Rosenthal, 1998).

    Args:
        log_target: log p, up to a constant, differentiable.
        step_size: epsilon.

    Raises:
        InputError: if the step size is not positive.
    """

    @property
    def best_acceptance(self) -> float:
        return 0.574

    def step(self, state: State, generator: torch.Generator | None = None) -> State:
        x = self._propose(state, generator)
        log_prob, gradient = evaluate_with_gradient(self.log_target, x)
        forth = self._log_transition(x, state.x, state.memory)
        back = self._log_transition(state.x, x, gradient)
        gradient_before = state.memory
        state, moved = accept_or_stay(state, x, log_prob, back - forth, generator)
        return state._replace(memory=choose(moved, gradient, gradient_before))

    def _log_transition(self, to: Tensor, start: Tensor, gradient: Tensor) -> Tensor:
        return -(to - self._mean(start, gradient)).square().flatten(1).sum(1) / (2 * self.step_size)


class StochasticGradientLangevin(Kernel):
    r"""Langevin dynamics with gradients of minibatches and decreasing steps.

    .. math::
        s' = s + \frac{\epsilon_t}{2} \hat g_t(s) + \sqrt{\epsilon_t} \, \xi, \qquad
        \sum_t \epsilon_t = \infty, \quad \sum_t \epsilon_t^2 < \infty

    As epsilon falls, the gradient's own noise, of variance O(epsilon^2), vanishes beside the noise added (Welling &
    Teh, 2011). Nothing is ever refused. With decreasing steps, means over the chain weigh each draw by its epsilon.

    Args:
        gradient: ``gradient(x, generator)``, an unbiased estimate of the gradient of log p at x (chains, *event), e.g.
            :func:`minibatch_gradient`.
        step_size: epsilon, or a function of the step's number t = 0, 1, ..., e.g. :func:`polynomial_decay`.

    Raises:
        FloatingPointError: (from ``step``) if a chain runs away.
    """

    def __init__(
        self,
        gradient: Callable[[Tensor, torch.Generator | None], Tensor],
        step_size: float | Callable[[int], float],
    ):
        self.gradient = gradient
        self.step_size = step_size

    def prepare(self, state: State) -> State:
        _floating(self, state.x)
        return state._replace(log_prob=None)

    def step(self, state: State, generator: torch.Generator | None = None) -> State:
        epsilon = self.step_size(state.step) if callable(self.step_size) else self.step_size
        if not 0 < epsilon < math.inf:
            raise InputError(f"StochasticGradientLangevin expects step sizes that are positive, got {epsilon}")
        gradient = self.gradient(state.x, generator)
        if gradient.shape != state.x.shape:
            raise InputError(f"a gradient expects shape {tuple(state.x.shape)}, got {tuple(gradient.shape)}")
        x = state.x + 0.5 * epsilon * gradient + math.sqrt(epsilon) * _noise(state.x, generator)
        _check_finite(self, x, gradient, epsilon)
        return state._replace(x=x, log_prob=None, **always_accepted(x))


def minibatch_gradient(
    log_prior: LogDensity,
    log_likelihood: Callable[[Tensor, Tensor], Tensor],
    data: Tensor,
    batch_size: int,
) -> Callable[[Tensor, torch.Generator | None], Tensor]:
    r"""An unbiased estimate of the gradient of a posterior's log-density.

    .. math::
        \hat g(s) = \nabla \log p(s) + \frac{N}{n} \sum_{i \in \text{batch}} \nabla \log p(d_i \mid s)

    Args:
        log_prior: of x (chains, *event), (chains,).
        log_likelihood: of x (chains, *event) and rows of the data (n, ...): log p of each row under each x,
            (chains, n).
        data: (N, ...).
        batch_size: n; drawn with replacement, one batch for all chains.

    Raises:
        InputError: unless 1 <= n <= N; when called, if the log-likelihood is of another shape.
    """
    if not 1 <= batch_size <= len(data):
        raise InputError(f"minibatch_gradient expects a batch size of 1 to {len(data)}, got {batch_size}")

    def gradient(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        rows = torch.randint(len(data), (batch_size,), generator=generator, device=data.device)

        def log_posterior(x: Tensor) -> Tensor:
            terms = log_likelihood(x, data[rows])
            if terms.shape != (len(x), batch_size):
                expected = (len(x), batch_size)
                raise InputError(f"the log likelihood expects to be of shape {expected}, got {tuple(terms.shape)}")
            return log_prior(x) + len(data) / batch_size * terms.sum(1)

        return evaluate_with_gradient(log_posterior, x)[1]

    return gradient


def polynomial_decay(first: float, delay: float = 1.0, power: float = 0.55) -> Callable[[int], float]:
    r"""Step sizes :math:`\epsilon_t = \epsilon_0 (1 + t / b)^{-\gamma}` (Welling & Teh, 2011).

    Args:
        first: epsilon_0.
        delay: b, after how many steps the decay sets in.
        power: gamma, in (0.5, 1].

    Raises:
        InputError: if the power is outside (0.5, 1], where the chain would stop short or never settle.
    """
    if not 0.5 < power <= 1:
        raise InputError(f"polynomial_decay expects a power in (0.5, 1], got {power}")
    return lambda t: first * (1 + t / delay) ** -power


def _noise(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def _floating(kernel: Kernel, x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise InputError(f"{type(kernel).__name__} expects points of a floating dtype, got {x.dtype}")
    return x


def _check_finite(kernel: Kernel, x: Tensor, gradient: Tensor, step_size: float) -> None:
    if not (x.isfinite().all() and gradient.isfinite().all()):
        raise FloatingPointError(
            f"{type(kernel).__name__} left the finite numbers with step size {step_size:.3g}: take a smaller one"
        )
