"""Running many Markov chains side by side."""

import warnings
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from waveflow.errors import InputError
from waveflow.sampling.diagnostics import effective_sample_size, r_hat
from waveflow.sampling.kernel import Kernel, State


@dataclass(frozen=True)
class Chains:
    """What :func:`run_chains` has drawn.

    Attributes:
        samples: (chains, draws, *event).
        log_prob: (chains, draws), the target's log-density there, or None if the kernel does not compute it.
        acceptance: (chains,), the share of proposals accepted after the warm-up.
        state: where the chains stand now; ``run_chains`` goes on from it.
    """

    samples: Tensor
    log_prob: Tensor | None
    acceptance: Tensor
    state: State

    def pooled(self) -> Tensor:
        """The draws of all chains, (chains * draws, *event)."""
        return self.samples.flatten(0, 1)

    def r_hat(self) -> Tensor:
        """See :func:`~waveflow.sampling.r_hat`: (*event)."""
        return r_hat(self.samples)

    def effective_sample_size(self, kind: str = "bulk") -> Tensor:
        """See :func:`~waveflow.sampling.effective_sample_size`: (*event)."""
        return effective_sample_size(self.samples, kind)


@torch.no_grad()
def run_chains(
    kernel: Kernel,
    start: Tensor | State,
    draws: int,
    warmup: int = 0,
    thin: int = 1,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Chains:
    """Run chains in parallel, all by the same kernel; a step is one batched evaluation for all of them.

    Args:
        kernel: the transition.
        start: (chains, *event), better spread wider than the target, or it takes R-hat longer to notice; or the state
            that a run of the same kernel has left, to go on with it: the same chains as without the break.
        draws: states kept of each chain.
        warmup: steps made before that and forgotten.
        thin: steps for each draw kept.
        generator: source of all randomness, on the device of ``start``.
        progress: show a bar.

    Raises:
        InputError: for no chains, a count out of range, or a log-density that is not finite at the start.

    Warns:
        RuntimeWarning: if the target gave NaN or +inf at proposals, which were refused.

    Example:
        >>> from waveflow.sampling import RandomWalk
        >>> log_target = lambda x: -0.5 * (x - 3.0).square().sum(1)
        >>> chains = run_chains(RandomWalk(log_target, 2.0), torch.zeros(64, 1), draws=500, warmup=50,
        ...     generator=torch.Generator().manual_seed(0))
        >>> chains.samples.shape, abs(chains.pooled().mean().item() - 3.0) < 0.1
        (torch.Size([64, 500, 1]), True)
    """
    for name, count, least in (("draws", draws, 1), ("warmup", warmup, 0), ("thin", thin, 1)):
        if count < least:
            raise InputError(f"run_chains expects {name} of at least {least}, got {count}")
    state = start if isinstance(start, State) else kernel.prepare(State(_checked(start)))
    samples, log_prob = state.x.new_empty(len(state.x), draws, *state.x.shape[1:]), None
    accepted = torch.zeros(len(state.x), device=state.x.device)
    invalid = torch.zeros_like(accepted)
    steps = warmup + draws * thin
    for step in tqdm(range(steps), desc=type(kernel).__name__, disable=not progress, mininterval=1.0):
        state = kernel.step(state, generator)
        state = state._replace(step=state.step + 1)
        invalid += state.invalid
        if step < warmup:
            continue
        accepted += state.accepted
        draw, kept = divmod(step - warmup + 1, thin)
        if kept == 0:
            samples[:, draw - 1] = state.x
            if state.log_prob is not None:
                log_prob = state.log_prob.new_empty(len(state.x), draws) if log_prob is None else log_prob
                log_prob[:, draw - 1] = state.log_prob
    if invalid.any():
        warnings.warn(
            f"{int(invalid.sum())} of {steps * len(state.x)} proposals had a log density that is NaN or +inf"
            " and were refused",
            RuntimeWarning,
            stacklevel=2,
        )
    return Chains(samples, log_prob, accepted / (draws * thin), state)


class Scalable(Protocol):
    """A kernel whose steps can be made longer or shorter: RandomWalk, MALA."""

    best_acceptance: float

    def prepare(self, state: State) -> State: ...

    def step(self, state: State, generator: torch.Generator | None = None) -> State: ...

    def scaled(self, factor: float) -> Self: ...


K = TypeVar("K", bound=Scalable)


@torch.no_grad()
def tune(
    kernel: K,
    start: Tensor,
    steps: int = 500,
    acceptance: float | None = None,
    generator: torch.Generator | None = None,
) -> tuple[K, Tensor]:
    r"""Scale the steps of a kernel until it accepts as often as wanted, over all chains.

    .. math::
        \log c_{t+1} = \log c_t + t^{-0.6} (a_t - a)

    (Robbins-Monro; Andrieu & Thoms, 2008.) The kernel returned is fixed: adapting while drawing would bias the chain.

    Args:
        kernel: to begin with.
        start: (chains, *event).
        steps: of adaptation.
        acceptance: a, by default the kernel's ``best_acceptance``.
        generator: source of all randomness.

    Returns:
        The kernel, and where the chains are after these steps, (chains, *event).

    Raises:
        InputError: if the acceptance is not between 0 and 1, or a log-density is not finite at the start.
    """
    wanted = kernel.best_acceptance if acceptance is None else acceptance
    if not 0 < wanted < 1:
        raise InputError(f"tune expects an acceptance between 0 and 1, got {acceptance}")
    state, log_factor, tuned = kernel.prepare(State(_checked(start))), 0.0, kernel
    for t in range(1, steps + 1):
        state = tuned.step(state, generator)
        log_factor += t**-0.6 * (state.accepted.mean().item() - wanted)
        tuned = kernel.scaled(torch.tensor(log_factor).exp().item())
    return tuned, state.x


def _checked(start: Tensor) -> Tensor:
    if start.ndim == 0 or len(start) == 0:
        raise InputError(f"chains expect starts (chains, ...), got shape {tuple(start.shape)}")
    return start.detach()
