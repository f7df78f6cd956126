"""Gibbs sampling: one coordinate at a time, from its conditional distribution."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from waveflow.errors import InputError
from waveflow.sampling.density import LogDensity, evaluate
from waveflow.sampling.inverse_cdf import sample_categorical
from waveflow.sampling.kernel import Kernel, State, always_accepted

Conditional = Callable[[Tensor, torch.Generator | None], Tensor]
"""``conditional(x, generator)`` draws new values of its coordinates of x (chains, D) given the others."""


class Gibbs(Kernel):
    r"""Resample the coordinates in turn, each from its conditional given all others.

    .. math::
        s_i' \sim p(s_i \mid s_{-i})

    Always accepted: with q(s -> s') = p(s_i' | s_-i) the Metropolis-Hastings ratio is 1 (Geman & Geman, 1984).

    Args:
        conditionals: one for each block.
        blocks: the coordinates of each: an index, for which the conditional gives (chains,), or a slice or list
            of n indices, (chains, n). Default: 0, 1, ...
        scan: ``"systematic"`` visits all blocks in order in each step; ``"random"`` visits as many, drawn at random
            with replacement (the same ones in all chains), which makes the step reversible.

    Raises:
        InputError: for blocks of another number than conditionals, or another scan; from ``step``, if a conditional
            gives another shape.
    """

    def __init__(
        self,
        conditionals: Sequence[Conditional],
        blocks: Sequence[int | slice | list[int]] | None = None,
        scan: Literal["systematic", "random"] = "systematic",
    ):
        blocks = range(len(conditionals)) if blocks is None else blocks
        if not conditionals or len(blocks) != len(conditionals):
            raise InputError(f"Gibbs expects a block for each of {len(conditionals)} conditionals, got {len(blocks)}")
        if scan not in ("systematic", "random"):
            raise InputError(f'Gibbs expects scan "systematic" or "random", got {scan!r}')
        self.conditionals = tuple(conditionals)
        self.blocks = tuple(blocks)
        self.scan = scan

    def prepare(self, state: State) -> State:
        return state

    def step(self, state: State, generator: torch.Generator | None = None) -> State:
        count = len(self.conditionals)
        order = range(count)
        if self.scan == "random":
            device = generator.device if generator is not None else None
            order = torch.randint(count, (count,), generator=generator, device=device).tolist()
        x = state.x
        for i in order:
            block, drawn = self.blocks[i], self.conditionals[i](x, generator)
            if drawn.shape != x[:, block].shape:
                raise InputError(
                    f"conditional {i} expects to give {tuple(x[:, block].shape)}, got {tuple(drawn.shape)}"
                )
            x = x.clone()
            x[:, block] = drawn.to(x.dtype)
        return state._replace(x=x, log_prob=None, **always_accepted(x))


def finite_conditional(log_target: LogDensity, index: int, values: Tensor) -> Conditional:
    """The conditional of a coordinate that takes finitely many values, by evaluating the target at each.

    Args:
        log_target: log p of x (N, D), up to a constant.
        index: the coordinate.
        values: (K,), what it can be.

    Example:
        >>> spins = torch.tensor([-1.0, 1.0])
        >>> ising = lambda x: 100.0 * x[:, 0] * x[:, 1]  # two spins that want to be alike
        >>> finite_conditional(ising, 0, spins)(torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).tolist()
        [-1.0, 1.0]
    """

    def conditional(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        tried = x.repeat_interleave(len(values), 0)
        tried[:, index] = values.to(x.dtype).repeat(len(x))
        log_prob = evaluate(log_target, tried).unflatten(0, (len(x), len(values)))
        return values.to(x.dtype)[sample_categorical(log_prob.double().softmax(1), (), generator)]

    return conditional
