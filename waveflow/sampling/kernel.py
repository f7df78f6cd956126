"""One step of a Markov chain, and of many side by side."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from waveflow.errors import InputError


class State(NamedTuple):
    """Where the chains stand.

    Attributes:
        x: (chains, *event).
        log_prob: (chains,), the target's log-density at x, or None if the kernel does not need it.
        memory: what the kernel keeps from step to step: a gradient, proposals drawn ahead.
        accepted: (chains,), the share of the last step's proposals that was accepted.
        invalid: (chains,), how many proposals of the last step had a log-density of NaN or +inf, or ratios of NaN.
        step: how many steps have been made.
    """

    x: Tensor
    log_prob: Tensor | None = None
    memory: Any = None
    accepted: Tensor | None = None
    invalid: Tensor | None = None
    step: int = 0


class Kernel:
    """A random step that leaves the target distribution as it is.

    Two methods, both without side effects; ``step`` is only called with states of the same kernel.
    """

    def prepare(self, state: State) -> State:
        """Compute what ``step`` needs to know about ``state.x``: the log-density unless it is there, and ``memory``.

        Raises:
            InputError: if the log-density at x is not finite.
        """
        raise NotImplementedError

    def step(self, state: State, generator: torch.Generator | None = None) -> State:
        """The next state. ``run_chains`` calls it without recording gradients."""
        raise NotImplementedError


def always_accepted(x: Tensor) -> dict[str, Tensor]:
    """The bookkeeping of a step that every chain of x (chains, *event) makes."""
    return {"accepted": torch.ones(len(x), device=x.device), "invalid": torch.zeros(len(x), device=x.device)}


class Cycle(Kernel):
    """One step of each of several kernels in turn, e.g. small local moves and now and then a flow's jump.

    If each leaves the target as it is, so does the cycle.

    Args:
        kernels: all of one target.

    Raises:
        InputError: for no kernels.
    """

    def __init__(self, kernels: Sequence[Kernel]):
        if not kernels:
            raise InputError("Cycle expects at least one kernel, got none")
        self.kernels = tuple(kernels)

    def prepare(self, state: State) -> State:
        memories = []
        for kernel in self.kernels:
            state = kernel.prepare(state._replace(memory=None))
            memories.append(state.memory)
        return state._replace(memory=tuple(memories))

    def step(self, state: State, generator: torch.Generator | None = None) -> State:
        memories, accepted, invalid = [], 0.0, 0.0
        for kernel, memory in zip(self.kernels, state.memory, strict=True):
            state = kernel.step(kernel.prepare(state._replace(memory=memory)), generator)
            memories.append(state.memory)
            accepted, invalid = accepted + state.accepted, invalid + state.invalid
        return state._replace(memory=tuple(memories), accepted=accepted / len(self.kernels), invalid=invalid)
