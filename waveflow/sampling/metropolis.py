"""Metropolis-Hastings: propose, then accept so that the target stays as it is."""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

from waveflow.errors import InputError
from waveflow.sampling.density import LogDensity, check_start, evaluate
from waveflow.sampling.kernel import Kernel, State
from waveflow.sampling.proposal import Proposal, draw


def accept_or_stay(
    state: State, x: Tensor, log_prob: Tensor, log_correction: Tensor | float, generator: torch.Generator | None
) -> tuple[State, Tensor]:
    r"""Move each chain to its proposal x with the probability of Metropolis and Hastings.

    .. math::
        a(s \to s') = \min\left(1, \frac{p(s') \, q(s' \to s)}{p(s) \, q(s \to s')}\right)

    which makes :math:`p(s) T(s \to s') = p(s') T(s' \to s)` (detailed balance; Hastings, 1970). Proposals whose
    log-density is NaN or +inf, or whose ratio is NaN, are refused and counted as invalid.

    Args:
        state: with ``log_prob``.
        x: proposals s', (chains, *event).
        log_prob: log p(s'), (chains,).
        log_correction: log q(s' -> s) - log q(s -> s'), (chains,), or 0 if q is symmetric.
        generator: source of the uniform numbers.

    Returns:
        The next state, and which chains have moved, (chains,), bool.
    """
    log_ratio = log_prob - state.log_prob + log_correction
    log_ratio = torch.where(log_prob == -math.inf, -math.inf, log_ratio)
    invalid = ~(log_prob < math.inf) | ~(log_ratio < math.inf)
    u = torch.rand(log_ratio.shape, generator=generator, dtype=log_ratio.dtype, device=log_ratio.device)
    moved = (u.log() < log_ratio) & ~invalid
    state = state._replace(
        x=choose(moved, x, state.x),
        log_prob=choose(moved, log_prob, state.log_prob),
        accepted=moved.float(),
        invalid=invalid.float(),
    )
    return state, moved


def choose(moved: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """``new`` (chains, ...) where ``moved`` (chains,), else ``old``."""
    return torch.where(moved.view(-1, *[1] * (new.ndim - 1)), new, old)


class _Metropolis(Kernel):
    def __init__(self, log_target: LogDensity):
        self.log_target = log_target

    def prepare(self, state: State) -> State:
        if state.log_prob is not None:
            return state
        return state._replace(log_prob=check_start(evaluate(self.log_target, state.x)))


class MetropolisHastings(_Metropolis):
    """Metropolis-Hastings with any proposal, on continuous or discrete spaces.

    Args:
        log_target: log p, up to a constant.
        propose: ``propose(x, generator)`` draws s' from q(x -> s'), (chains, *event).
        log_transition: ``log_transition(to, start)`` = log q(start -> to), (chains,); None if q is symmetric.
    """

    def __init__(
        self,
        log_target: LogDensity,
        propose: Callable[[Tensor, torch.Generator | None], Tensor],
        log_transition: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        super().__init__(log_target)
        self.propose = propose
        self.log_transition = log_transition

    def step(self, state: State, generator: torch.Generator | None = None) -> State:
        x = self.propose(state.x, generator)
        if x.shape != state.x.shape or x.dtype != state.x.dtype:
            raise InputError(
                f"propose expects to give {tuple(state.x.shape)} of {state.x.dtype}, got {tuple(x.shape)} of {x.dtype}"
            )
        correction = 0.0
        if self.log_transition is not None:
            correction = self.log_transition(state.x, x) - self.log_transition(x, state.x)
        return accept_or_stay(state, x, evaluate(self.log_target, x), correction, generator)[0]


class RandomWalk(_Metropolis):
    r"""Random-walk Metropolis: s' = s + L xi with xi standard normal; symmetric, so that only p(s') / p(s) counts.

    Metropolis et al., 1953. In D dimensions steps of 2.38 / sqrt(D) standard deviations, which accept about 0.234
    (0.44 for D = 1), are near the best (Roberts, Gelman & Gilks, 1997): :meth:`from_samples` and
    :func:`~waveflow.sampling.tune` get there.

    Args:
        log_target: log p, up to a constant.
        scale: L, a positive number, one for each coordinate (*event), or for events (D,) a matrix (D, D).

    Raises:
        InputError: if a number of the scale is not finite or a number or coordinate's is not positive.
    """

    def __init__(self, log_target: LogDensity, scale: float | Tensor):
        super().__init__(log_target)
        values = torch.as_tensor(scale)
        if not values.isfinite().all() or (values.ndim < 2 and not (values > 0).all()):
            raise InputError(f"RandomWalk expects a scale that is positive and finite, got {scale}")
        self.scale = scale

    @classmethod
    def from_samples(cls, log_target: LogDensity, samples: Tensor) -> Self:
        """Steps of the shape of ``samples`` (N, D), e.g. of a first run (Haario, Saksman & Tamminen, 2001)."""
        features = samples.shape[1]
        covariance = samples.T.double().cov().reshape(features, features)
        ridge = 1e-9 * covariance.diagonal().mean() * torch.eye(features, dtype=torch.float64, device=samples.device)
        factor = torch.linalg.cholesky(covariance + ridge)
        return cls(log_target, (2.38 / math.sqrt(features) * factor).to(samples.dtype))

    @property
    def best_acceptance(self) -> float:
        return 0.234

    def scaled(self, factor: float) -> Self:
        """The same kernel with steps ``factor`` times as long."""
        return type(self)(self.log_target, self.scale * factor)

    def prepare(self, state: State) -> State:
        scale, event = torch.as_tensor(self.scale), state.x.shape[1:]
        if not state.x.is_floating_point():
            raise InputError(f"RandomWalk expects points of a floating dtype, got {state.x.dtype}")
        if scale.ndim and scale.shape != event and not self._is_matrix(event):
            raise InputError(f"RandomWalk expects a scale for events of shape {tuple(event)}, got {tuple(scale.shape)}")
        return super().prepare(state)

    def step(self, state: State, generator: torch.Generator | None = None) -> State:
        xi = torch.randn(state.x.shape, generator=generator, dtype=state.x.dtype, device=state.x.device)
        move = xi @ self.scale.T if self._is_matrix(state.x.shape[1:]) else self.scale * xi
        x = state.x + move
        return accept_or_stay(state, x, evaluate(self.log_target, x), 0.0, generator)[0]

    def _is_matrix(self, event: tuple[int, ...]) -> bool:
        return isinstance(self.scale, Tensor) and len(event) == 1 and self.scale.shape == (*event, *event)


class _Ahead(NamedTuple):
    log_proposal: Tensor  # log q at the chains' x
    candidates: tuple[Tensor, Tensor, Tensor] | None = None  # points, log p, log q of `ahead` steps
    used: int = 0


class Independence(_Metropolis):
    r"""Metropolis-Hastings with proposals that do not depend on where the chain is, e.g. a trained flow's.

    .. math::
        a(s \to s') = \min\left(1, \frac{p(s') / q(s')}{p(s) / q(s)}\right)

    The chain jumps between modes as freely as q does, and is uniformly ergodic if p / q is bounded (Tierney, 1994;
    with flows: Gabrie, Rotskoff & Vanden-Eijnden, 2022, arXiv:2105.12603): let q have the heavier tails, and start
    the chains at draws of q, since one that starts where q is far smaller than p stays there for long.

    Args:
        log_target: log p, up to a constant.
        proposal: q, see :class:`~waveflow.sampling.Proposal`.
        ahead: for how many steps proposals are drawn and evaluated in one batch; it changes the cost only.

    Raises:
        InputError: if ``ahead`` is not positive.
    """

    def __init__(self, log_target: LogDensity, proposal: Proposal, ahead: int = 32):
        super().__init__(log_target)
        if ahead < 1:
            raise InputError(f"Independence expects to draw at least 1 step ahead, got {ahead}")
        self.proposal = proposal
        self.ahead = ahead

    def prepare(self, state: State) -> State:
        state = super().prepare(state)
        log_proposal = evaluate(self.proposal.log_prob, state.x, "log_prob of the proposal")
        memory = state.memory or _Ahead(check_start(log_proposal, "log_prob of the proposal"))
        return state._replace(memory=memory._replace(log_proposal=log_proposal))

    def step(self, state: State, generator: torch.Generator | None = None) -> State:
        log_proposal, candidates, used = state.memory
        if candidates is None or used == self.ahead:
            candidates, used = self._draw(state.x, generator), 0
        x, log_prob, log_q = (part[used] for part in candidates)
        state, moved = accept_or_stay(state, x, log_prob, log_proposal - log_q, generator)
        return state._replace(memory=_Ahead(choose(moved, log_q, log_proposal), candidates, used + 1))

    def _draw(self, like: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        x, log_q = draw(self.proposal, self.ahead * len(like), generator)
        if x.shape[1:] != like.shape[1:] or x.dtype != like.dtype:
            raise InputError(
                f"the chains expect proposals of shape {tuple(like.shape[1:])} and {like.dtype}, "
                f"got {tuple(x.shape[1:])} and {x.dtype}"
            )
        log_p = evaluate(self.log_target, x)
        return tuple(part.unflatten(0, (self.ahead, len(like))) for part in (x, log_p, log_q))
