"""A flow's own draws, scored by the flow and by another density: what reverse KL is made of."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from waveflow.context import Context, repeat_context
from waveflow.distributions.flow import Flow


class ScoredDraws(NamedTuple):
    """Draws of q, with their log-densities under q and p in nats.

    Attributes:
        x: (draws, B, \\*event) given a context of batch size B, otherwise (draws, \\*event).
        log_q: (draws, B) or (draws,).
        log_p: the same shape.
    """

    x: Tensor
    log_q: Tensor
    log_p: Tensor

    @property
    def log_ratio(self) -> Tensor:
        r""":math:`\log q(x) - \log p(x)`, whose mean estimates KL(q || p)."""
        return self.log_q - self.log_p


def score_draws(
    flow: Flow,
    log_prob: Callable[..., Tensor],
    context: Context = None,
    draws: int = 1,
    generator: torch.Generator | None = None,
) -> ScoredDraws:
    """Draw from a flow and score the draws, with gradients to the flow along both ways: through log q, and through x.

    Args:
        flow: q; or what wraps a :class:`~waveflow.distillation.Student`: called with (draws, context, generator), it
            gives draws and their log-densities.
        log_prob: log p of x (N, \\*event) to (N,), differentiable; called with the context too, repeated to (N, ...),
            where there is one.
        context: None, or a batch of B of them.
        draws: for each item of the context.
        generator: of the draws.
    """
    if callable(getattr(flow, "sample_with_log_prob", None)):
        x, log_q = flow.sample_with_log_prob((draws,), context, generator=generator)
    else:
        x, log_q = flow(draws, context, generator)
    return ScoredDraws(x, log_q, score(log_prob, x, log_q.ndim, context))


def score(log_prob: Callable[..., Tensor], x: Tensor, batch_ndim: int, context: Context = None) -> Tensor:
    """``log_prob`` of x, whose first ``batch_ndim`` axes are (draws, B), or (draws,) where there is no context."""
    batch = x.shape[:batch_ndim]
    flat = x.flatten(0, batch_ndim - 1)
    scores = log_prob(flat) if context is None else log_prob(flat, repeat_context(context, batch[0]))
    return scores.reshape(batch)
