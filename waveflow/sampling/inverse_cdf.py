"""Draws by turning uniform numbers through the inverse of a distribution function."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from waveflow.errors import InputError


def sample_inverse_cdf(
    quantile: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Draw from the distribution whose quantile function is given.

    .. math::
        x = F^{-1}(u), \quad u \sim U(0, 1) \qquad \Rightarrow \qquad P(x \le a) = P(u \le F(a)) = F(a)

    (Devroye, 1986: Non-Uniform Random Variate Generation, II.2.)

    Args:
        quantile: F^-1, elementwise; the ``icdf`` of a ``torch.distributions`` object, or :func:`quantile_of`.
        shape: of the draw.
        generator: source of the uniform numbers.
        dtype, device: of the uniform numbers, which are never 0 nor 1.

    Example:
        >>> x = sample_inverse_cdf(lambda u: -torch.log1p(-u) / 2.0, (20_000,), torch.Generator().manual_seed(0))
        >>> round(x.mean().item(), 1)  # exponential of rate 2
        0.5
    """
    u = torch.rand(shape, generator=generator, dtype=dtype, device=device)
    return quantile(u.clamp_min(torch.finfo(u.dtype).eps / 4))


def quantile_of(cdf: Callable[[Tensor], Tensor], low: float, high: float) -> Callable[[Tensor], Tensor]:
    """The quantile function of a distribution of which only the distribution function is known, by bisection.

    Args:
        cdf: F, elementwise, continuous and not decreasing.
        low, high: an interval; the distribution is truncated to it, so let it hold all mass that matters.

    Returns:
        A function of probabilities in [0, 1], of any shape, with results in the precision of its argument.

    Raises:
        InputError: unless low < high, both finite; from the function returned, if F does not grow between them.
    """
    if not -float("inf") < low < high < float("inf"):
        raise InputError(f"quantile_of expects finite bounds low < high, got {low} and {high}")

    def quantile(u: Tensor) -> Tensor:
        left, right = torch.full_like(u, low), torch.full_like(u, high)
        below, above = cdf(left), cdf(right)
        if not (below < above).all():
            raise InputError(f"quantile_of expects a cdf that grows from {low} to {high}")
        goal = below + u * (above - below)
        for _ in range(8 - round(math.log2(torch.finfo(u.dtype).eps))):
            middle = (left + right) / 2
            too_low = cdf(middle) < goal
            left, right = torch.where(too_low, middle, left), torch.where(too_low, right, middle)
        return (left + right) / 2

    return quantile


def sample_categorical(
    weights: Tensor, shape: tuple[int, ...] = (), generator: torch.Generator | None = None
) -> Tensor:
    r"""Draw indices with probabilities proportional to ``weights``.

    .. math::
        x = \min\{k : u \sum_j w_j < w_1 + \dots + w_k\}, \qquad u \sim U[0, 1)

    The cumulative sums are float64; an index of weight 0 is never drawn.

    Args:
        weights: (*batch, K), not negative, of any sum.
        shape: how many draws of each.
        generator: source of the uniform numbers.

    Returns:
        (*shape, *batch), int64.

    Raises:
        InputError: if weights are negative or not finite, or all of a row are 0.

    Example:
        >>> sample_categorical(torch.tensor([[0.0, 3.0], [1.0, 0.0]]), (2,)).tolist()
        [[1, 0], [1, 0]]
    """
    if weights.ndim == 0 or not (weights.isfinite() & (weights >= 0)).all():
        raise InputError("sample_categorical expects finite weights (*batch, K) that are not negative")
    cumulative = weights.double().cumsum(-1)
    if weights.shape[-1] == 0 or not (cumulative[..., -1] > 0).all():
        raise InputError("sample_categorical expects at least one positive weight in each row")
    total = cumulative[..., -1]
    u = torch.rand((*shape, *total.shape), generator=generator, dtype=torch.float64, device=weights.device)
    # u <= 1 - 2^-53, so that the product is below the total after rounding, too: never behind the last weight.
    level = (u * total).reshape(-1, *total.shape).movedim(0, -1).contiguous()
    return torch.searchsorted(cumulative, level, right=True).movedim(-1, 0).reshape(u.shape)
