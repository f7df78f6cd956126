"""The learning rate as a pure function of the step."""

from collections.abc import Sequence


def learning_rate_factor(
    step: int,
    warmup_steps: int = 0,
    halve_at: Sequence[int] = (),
    decay_after: int = 0,
    decay_power: float = 0.5,
) -> float:
    r"""Fraction of the peak learning rate that is used at a step.

    .. math::
        \min\left(1, \frac{s + 1}{w}\right) \cdot \min\left(1, \left(\frac{d}{s}\right)^{p}\right)
        \cdot 2^{-\#\{m \in \text{halve\_at}: m \le s\}}

    It knows nothing of the total number of steps: a run that is prolonged continues as if it had been so long from
    the start. With ``decay_after = warmup_steps`` and power 0.5 this is the inverse square root schedule of
    Vaswani et al. (2017; arXiv:1706.03762).

    Args:
        step: s, the number of steps done before this one, from 0.
        warmup_steps: w, steps of linear warm-up; 0 for none.
        halve_at: milestones m.
        decay_after: d, the step after which the power decay begins; 0 for none.
        decay_power: p.

    Example:
        >>> [learning_rate_factor(s, warmup_steps=4, halve_at=(5,)) for s in (0, 1, 3, 4, 5)]
        [0.25, 0.5, 1.0, 1.0, 0.5]
        >>> learning_rate_factor(400, decay_after=100)
        0.5
    """
    factor = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    if decay_after and step > decay_after:
        factor *= (decay_after / step) ** decay_power
    return factor * 0.5 ** sum(step >= milestone for milestone in halve_at)
