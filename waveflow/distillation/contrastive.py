"""The contrastive term: what is drawn under one context must not be likely under another."""

import torch
from torch import Tensor

from waveflow.distillation.teacher import Density, frozen_log_prob
from waveflow.distributions.scored_draws import ScoredDraws, score
from waveflow.errors import InputError

CONTRASTIVE_WEIGHT = 0.3
"""Parallel WaveNet's factor of :func:`contrastive_kl`, which is subtracted from the loss."""


def contrastive_kl(
    drawn: ScoredDraws, teacher: Density, context: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    r"""Estimates of the KL of the student under its own context from the teacher under that of another item.

    .. math::
        \mathrm{KL}(p_S(\cdot \mid c_1) \| p_T(\cdot \mid c_1)) - \gamma\,
        \mathrm{KL}(p_S(\cdot \mid c_1) \| p_T(\cdot \mid c_2)), \qquad \gamma = 0.3

    is Parallel WaveNet's loss with this term (van den Oord et al., 2017; arXiv:1711.10433, section 4.3): it keeps a
    student from draws that are likely whatever the context. This function gives the second KL, without its factor.

    Args:
        drawn: from :func:`~waveflow.distillation.draw_scored` with the context; the student is not run again.
        teacher: the one that scored them.
        context: (B, ...), the one they were drawn under.
        generator: of the exchange of contexts: all are moved on by the same random number of places, so that none keeps
            its own. On the CPU.

    Returns:
        (draws, B), nats an event.

    Raises:
        InputError: for a context of fewer than two items, or draws made without it.
    """
    items = 0 if context is None else len(context)
    if items < 2:
        raise InputError(f"the contrastive loss expects a batch of at least 2 contexts, got {items}")
    if drawn.log_q.ndim != 2 or drawn.log_q.shape[1] != items:
        raise InputError(
            f"the contrastive loss expects draws for each of {items} contexts, got shape {tuple(drawn.log_q.shape)}"
        )
    places = int(torch.randint(1, items, (), generator=generator))
    return drawn.log_q - score(frozen_log_prob(teacher), drawn.x, 2, context.roll(places, 0))
