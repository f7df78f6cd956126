"""A way from where the student starts to the teacher, so that it drops none of the teacher's modes."""

from collections.abc import Callable

from torch import Tensor

from waveflow.context import Context
from waveflow.distillation.teacher import Density, frozen_log_prob
from waveflow.errors import InputError


def annealed(teacher: Density, start: Density, weight: float) -> Callable[..., Tensor]:
    r"""A density between two, up to a constant, for :func:`~waveflow.distillation.reverse_kl` in the teacher's place.

    .. math::
        \log p_\beta(x) = \beta \log p_T(x) + (1 - \beta) \log p_0(x)

    Reverse KL is minimised as well by one mode of several: the student sees only what it draws. From a broad
    :math:`p_0` on, with a slowly growing beta (as in annealed importance sampling: Neal, 2001), it is on all of them
    when they come apart.

    Args:
        teacher: p_T.
        start: p_0, which the student begins near to: its base in the teacher's units.
        weight: beta in [0, 1].

    Raises:
        InputError: for any other weight.
    """
    if not 0 <= weight <= 1:
        raise InputError(f"annealed expects a weight in [0, 1], got {weight}")
    log_teacher = frozen_log_prob(teacher)
    if weight == 1:
        return log_teacher
    log_start = frozen_log_prob(start)

    def log_prob(x: Tensor, context: Context = None) -> Tensor:
        given = () if context is None else (context,)
        return weight * log_teacher(x, *given) + (1 - weight) * log_start(x, *given)

    return log_prob


def annealing_weight(step: int, steps: int, first: float = 1e-5) -> float:
    """beta of :func:`annealed` at a step: from ``first`` to 1 in so many steps, by a constant factor; 1 from then on.

    Log-densities of a teacher fall to -100,000 a few standard deviations off what it knows; the way therefore starts
    at so small a weight.

    Example:
        >>> [annealing_weight(step, 100, first=1e-4) for step in (0, 50, 100, 500)]
        [0.0001, 0.01, 1.0, 1.0]
        >>> annealing_weight(0, 0)
        1.0
    """
    return first ** (1 - step / steps) if step < steps else 1.0
