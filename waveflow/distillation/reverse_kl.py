"""The three steps of distillation: the student draws, the teacher scores, and their ratio is minimised."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from waveflow.context import Context, Ragged
from waveflow.distillation.student import Student
from waveflow.distillation.teacher import (
    Density,
    flow_of,
    frozen_log_prob,
    require_match,
    require_parallel_density,
)
from waveflow.distributions.flow import Flow
from waveflow.distributions.scored_draws import ScoredDraws, score_draws
from waveflow.errors import InputError


def draw_scored(
    student: Flow | Student,
    teacher: Density,
    context: Context = None,
    draws: int = 1,
    generator: torch.Generator | None = None,
) -> ScoredDraws:
    r"""The student's draws with log p_S and log p_T of each, all of it parallel over the numbers of an event.

    1. z ~ base, x = student(z), with :math:`\log p_S(x)` for free;
    2. :math:`\log p_T(x)` in one pass of the teacher, whose weights take no gradients, while x does.

    What further losses need (spectra of x, the same x under another context) is made from this, without another pass
    of the student.

    Args:
        student: a flow that samples in one pass, or what wraps a :class:`Student` of one.
        teacher: a flow or a model that has one, with a density in one pass; or a function, differentiable, of x
            (N, \*event), and the context repeated to (N, ...) where there is one, to log p (N,).
        context: None, or a batch of B of them, which both are given.
        draws: for each item of the context.
        generator: of the draws.

    Raises:
        InputError: for fewer than one draw, a teacher whose density is solved for number by number, or one that does
            not fit the student's events or context.
    """
    if draws < 1:
        raise InputError(f"distillation expects at least 1 draw, got {draws}")
    if isinstance(context, Ragged):
        raise InputError("distillation expects contexts of one length, got a padded batch")
    if isinstance(teacher, nn.Module):
        require_parallel_density(flow_of(teacher))
        require_match(student, teacher, context)
    return score_draws(student, frozen_log_prob(teacher), context, draws, generator)


def reverse_kl(
    student: Flow | Student,
    teacher: Density,
    context: Context = None,
    draws: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Estimates of KL(student || teacher), one for each draw, in nats an event.

    .. math::
        \log p_S(x) - \log p_T(x), \quad x \sim p_S; \qquad
        \mathrm{KL}(p_S \| p_T) = E_{x \sim p_S}[\log p_S(x) - \log p_T(x)]

    (Parallel WaveNet: van den Oord et al., 2017; arXiv:1711.10433.) Their mean is what to minimise. It needs no data,
    and forgives the student modes of the teacher that it never visits.

    Args and errors: those of :func:`draw_scored`.

    Returns:
        (draws, B) given a context of batch size B, otherwise (draws,).

    Example:
        >>> from waveflow.models import IAF, MAF
        >>> student, teacher = (M(features=2, layers=1, hidden=(8,)) for M in (IAF, MAF))
        >>> reverse_kl(student, teacher, draws=100).mean().item()  # both are still standard normal
        0.0
    """
    return draw_scored(student, teacher, context, draws, generator).log_ratio


class KLEstimate(NamedTuple):
    """An estimate of KL(student || teacher) in nats.

    Attributes:
        mean: of an event.
        error: its standard error.
        per_dim: of one number of an event.
        per_dim_error: its standard error.
    """

    mean: float
    error: float
    per_dim: float
    per_dim_error: float

    def __str__(self) -> str:
        return f"{self.per_dim:.4f} ± {self.per_dim_error:.4f} nats a dimension"


@torch.no_grad()
def estimate_kl(
    student: Flow | Student,
    teacher: Density,
    context: Context = None,
    draws: int = 10_000,
    batch: int = 1000,
    generator: torch.Generator | None = None,
) -> KLEstimate:
    """KL(student || teacher) by many draws, with its standard error, for reports.

    With a context it is the mean over its items, and the error that of this mean *given* these items.

    Args:
        student: as in :func:`draw_scored`; in evaluation mode for the call.
        teacher: likewise.
        context: likewise.
        draws: for each item of the context, at least 2.
        batch: draws of all items together that are made at a time.
        generator: of the draws.

    Raises:
        InputError: for fewer than 2 draws; as :func:`draw_scored`.
    """
    if draws < 2:
        raise InputError(f"estimate_kl expects at least 2 draws, got {draws}")
    flow = flow_of(student)
    modes = {part: part.training for part in flow.modules()}
    flow.eval()
    at_once = max(1, batch // (1 if context is None else len(context)))
    ratios, size = [], 0
    try:
        for begin in range(0, draws, at_once):
            scored = draw_scored(flow, teacher, context, min(at_once, draws - begin), generator)
            ratios.append(scored.log_ratio.double().cpu())
            size = scored.x.shape[scored.log_q.ndim :].numel()
    finally:
        for part, training in modes.items():
            part.training = training
    ratio = torch.cat(ratios).reshape(draws, -1)  # (draws, B)
    mean = ratio.mean().item()
    error = (ratio.var(0) / draws).sum().sqrt().item() / ratio.shape[1]
    return KLEstimate(mean, error, mean / size, error / size)
