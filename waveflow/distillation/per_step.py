"""Losses between the conditionals of student and teacher, step by step, where both are known."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from waveflow.distributions import Base
from waveflow.distributions.bases import StandardLogistic
from waveflow.errors import InputError


def gaussian_kl(
    mean_q: Tensor,
    log_std_q: Tensor,
    mean_p: Tensor,
    log_std_p: Tensor,
    floor: float | None = None,
    log_unit: Tensor | float = 0.0,
) -> Tensor:
    r"""KL(q || p) of Gaussians in closed form, step by step (ClariNet: Ping et al., 2018; arXiv:1807.07281).

    .. math::
        \log\frac{\sigma_p}{\sigma_q} + \frac{\sigma_q^2 + (\mu_p - \mu_q)^2}{2 \sigma_p^2} - \frac{1}{2}

    Args:
        mean_q: the student's means, of any shape.
        log_std_q: logs of its standard deviations.
        mean_p: the teacher's means.
        log_std_p: logs of its standard deviations.
        floor: both log-stds are raised to at least this, here only, where a peaked teacher would make the loss explode:
            -7 and -6 are in use, for waveforms in [-1, 1]. None for the true divergence.
        log_unit: log of the size, in the units that ``floor`` is meant in, of the unit of means and stds; of any shape
            that broadcasts. Behind ``LinearPrediction`` it is the log of its gain: the floor then counts in waveform
            units. Without a floor it changes nothing.

    Returns:
        nats a step, the broadcast shape.
    """
    difference = mean_p - mean_q
    if floor is not None:
        difference = difference * torch.as_tensor(log_unit, dtype=mean_q.dtype, device=mean_q.device).exp()
        log_std_q, log_std_p = ((log_std + log_unit).clamp_min(floor) for log_std in (log_std_q, log_std_p))
    log_ratio = log_std_q - log_std_p
    return 0.5 * ((2 * log_ratio).exp() + (difference * (-log_std_p).exp()).square() - 1) - log_ratio


def log_scale_penalty(log_scale_q: Tensor, log_scale_p: Tensor, weight: float = 4.0) -> Tensor:
    r"""ClariNet's regulariser :math:`\lambda (\log\sigma_p - \log\sigma_q)^2`, step by step (arXiv:1807.07281, eq. 8).

    Where both are peaked the KL changes wildly with the means; this term sees to the scales first. It takes the
    log-scales as they are, without the floor of :func:`gaussian_kl`.

    Args:
        log_scale_q: the student's.
        log_scale_p: the teacher's.
        weight: lambda.
    """
    return weight * (log_scale_p - log_scale_q).square()


def logistic_entropy(log_scale: Tensor) -> Tensor:
    r"""Entropy :math:`\log s + 2` of logistics, in nats a step (arXiv:1711.10433, eq. 6)."""
    return log_scale + 2


def gaussian_entropy(log_std: Tensor) -> Tensor:
    r"""Entropy :math:`\log\sigma + \tfrac{1}{2}\log(2 \pi e)` of Gaussians, in nats a step."""
    return log_std + 0.5 * math.log(2 * math.pi * math.e)


def cross_entropy(
    location: Tensor,
    log_scale: Tensor,
    log_density: Callable[[Tensor], Tensor],
    draws: int = 100,
    base: Base | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Parallel WaveNet's H(P_S, P_T), step by step: several draws of every step, scored by one pass of the teacher.

    .. math::
        H(P_S, P_T)_t = E_{x_t \sim p_S(x_t \mid z_{<t})}[-\log p_T(x_t \mid x_{<t})], \qquad
        x_t = \mu_t + s_t \epsilon_t

    (van den Oord et al., 2017; arXiv:1711.10433, eq. 7). The teacher's parameters at t follow from one whole draw
    x; at each t there are then many x_t, which costs no further pass and makes the gradient far less noisy than one.
    Minus the entropy of the student's conditionals (:func:`logistic_entropy`) it is the KL.

    Args:
        location: mu, the student's, of any shape.
        log_scale: log s.
        log_density: log p_T of x (draws, \*shape) under the parameters at each step, to the same shape, in nats.
        draws: of each step.
        base: distribution of epsilon (default: standard logistic).
        generator: of the draws.

    Returns:
        nats a step, of the shape of ``location``.

    Raises:
        InputError: for fewer than one draw, or a density that is not given for each of them.
    """
    if draws < 1:
        raise InputError(f"cross_entropy expects at least 1 draw, got {draws}")
    shape = (draws, *torch.broadcast_shapes(location.shape, log_scale.shape))
    base = StandardLogistic() if base is None else base
    noise = base.sample(shape, generator=generator, dtype=location.dtype, device=location.device)
    scores = log_density(location + log_scale.exp() * noise)
    if scores.shape != shape:
        raise InputError(
            f"cross_entropy expects the log-density of {shape} draws one by one, got {tuple(scores.shape)}"
        )
    return -scores.mean(0)
