"""Monotone rational-quadratic splines: a univariate map that bends as its parameters say."""

import math

import torch
from torch import Tensor

from waveflow.bijectors.base import log_det_dtype
from waveflow.bijectors.univariate import Univariate


class RationalQuadraticSpline(Univariate):
    r"""A monotone spline of rational quadratics (neural spline flows: Durkan et al., 2019; arXiv:1906.04032).

    Between the knots (x_k, z_k) and (x_{k+1}, z_{k+1}), with slopes d_k and d_{k+1} there,

    .. math::
        z = z_k + h \frac{s \xi^2 + d_k \xi (1-\xi)}{s + (d_k + d_{k+1} - 2 s)\, \xi (1-\xi)}, \qquad
        \xi = \frac{x - x_k}{w}, \quad w = x_{k+1} - x_k, \quad h = z_{k+1} - z_k, \quad s = h / w.

    Parameters: [K raw widths | K raw heights | K - 1 raw slopes] (circular: K slopes). Widths and heights are a softmax
    mixed with a uniform part, so that no bin is narrower or lower than ``min_bin`` of a uniform one. A slope is the
    harmonic mean of s in the two bins that meet at the knot, times a factor between 1 / ``max_ratio`` and
    ``max_ratio``. Unlike slopes that know nothing of the bins, as in the paper, these cannot make the middle of a flat
    bin far flatter than the bin is: the inverse stays as accurate as the bins allow. All zero is the identity. The
    inverse is the root of a quadratic, in a form that only adds what has one sign: its discriminant is never negative.
    All is computed in float64: what a round trip in float32 loses follows from the rounding of x, z and params.

    Args:
        bins: K.
        bound: the spline maps [-bound, bound] onto itself and is the identity outside, with K - 1 slopes inside and
            slope 1 at both ends.
        circular: instead of tails, K slopes of which the first is also the last (Rezende et al., 2020;
            arXiv:2002.02428): a smooth map of the circle [-bound, bound), for angles; beyond it, it goes on
            periodically, f(x + 2 bound) = f(x) + 2 bound.
        min_bin: smallest width and height of a bin, as a part of 2 bound / K.
        max_ratio: largest ratio of a slope at a knot to the harmonic mean, its inverse the smallest.
        raw_scale: factor of the raw parameters. Below 1 it keeps splines gentle where a network's weights have grown,
            and slows its start: 1 / sqrt(n) for n units in the last hidden layer is the gentlest in use.

    Raises:
        ValueError: for fewer than two bins, a bound that is not positive, ``min_bin`` outside (0, 1), ``max_ratio`` not
            above 1, or ``raw_scale`` not positive.

    Example:
        >>> spline = RationalQuadraticSpline(bins=4, bound=2.0)
        >>> z, log_derivative = spline(torch.tensor([[0.5, 9.0]]), torch.zeros(1, spline.params, 2))
        >>> z.tolist(), log_derivative.tolist()
        ([[0.5, 9.0]], [[0.0, 0.0]])
    """

    def __init__(
        self,
        bins: int = 8,
        bound: float = 5.0,
        circular: bool = False,
        min_bin: float = 0.01,
        max_ratio: float = 100.0,
        raw_scale: float = 1.0,
    ):
        super().__init__()
        if bins < 2 or bound <= 0 or not 0 < min_bin < 1 or max_ratio <= 1 or not raw_scale > 0:
            raise ValueError(
                "RationalQuadraticSpline expects bins >= 2, bound > 0, 0 < min_bin < 1, max_ratio > 1 and "
                f"raw_scale > 0, got bins={bins}, bound={bound}, min_bin={min_bin}, max_ratio={max_ratio}, "
                f"raw_scale={raw_scale}"
            )
        self.bins, self.bound, self.circular = bins, float(bound), circular
        self.min_bin, self.max_ratio, self.raw_scale = min_bin, max_ratio, raw_scale
        self.params = 3 * bins if circular else 3 * bins - 1

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self._map(x, params, inverse=False)

    def inverse(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self._map(z, params, inverse=True)

    def extra_repr(self) -> str:
        return (
            f"bins={self.bins}, bound={self.bound}, circular={self.circular}, min_bin={self.min_bin}, "
            f"max_ratio={self.max_ratio}, raw_scale={self.raw_scale}"
        )

    def _map(self, given: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        # In float32 the knots, sums of up to 2 bounds, would be off by several times as much as x is rounded, and
        # differently in the two directions where parameters come from sums in another order.
        t, params, bound = given.double(), self.raw_scale * params.double(), self.bound
        turns = torch.floor((t.detach() + bound) / (2 * bound)) * (2 * bound) if self.circular else 0.0
        # Clamped before anything else: what lies outside must not reach a formula whose gradient it could spoil.
        clamped = (t - turns).clamp(-bound, bound)

        x, z, w, h, d, d_next = self._bin(clamped, params, inverse)
        s = h / w
        if inverse:
            eta = _within_bin((clamped - z) / h)
            p = d * (1 - eta) - d_next * eta
            product = 4 * s * s * eta * (1 - eta)
            root = (p * p + product).sqrt()
            # p + root, where p < 0 without cancellation
            xi = 2 * s * eta / (2 * s * eta + torch.where(p < 0, product / (root + p.abs()), p + root))
        else:
            xi = _within_bin((clamped - x) / w)
        bend = xi * (1 - xi)
        divisor = s * (1 - 2 * bend) + (d + d_next) * bend
        slope = s * s * (d_next * xi * xi + 2 * s * bend + d * (1 - xi) * (1 - xi)) / (divisor * divisor)
        value = x + w * xi if inverse else z + h * (s * xi * xi + d * bend) / divisor
        log_derivative = (-slope.log() if inverse else slope.log()).to(log_det_dtype(given))
        if self.circular:
            return (value + turns).to(given.dtype), log_derivative
        inside = clamped == t
        return torch.where(inside, value, t).to(given.dtype), torch.where(inside, log_derivative, 0.0)

    def _bin(self, t: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, ...]:
        """The bin of each t: its lower left corner (x, z), its width and height, the slopes at its ends."""
        bins, bound = self.bins, self.bound
        raw_sizes, raw_slopes = params.split([2 * bins, self.params - 2 * bins], 1)
        parts = raw_sizes.unflatten(1, (2, bins)).softmax(2)
        uniform, free = 2 * bound * self.min_bin / bins, 2 * bound * (1 - self.min_bin)

        numbers = torch.arange(1, bins + 1, dtype=t.dtype, device=t.device).reshape(-1, *[1] * (t.ndim - 1))
        ends = torch.where(numbers < bins, uniform * numbers - bound, torch.inf)
        ends = torch.add(ends, parts.detach()[:, int(inverse)].cumsum(1), alpha=free)
        passed = t.detach().unsqueeze(1) >= ends
        k = passed.sum(1, keepdim=True)

        around = torch.cat([k - 1, k, k + 1], 1)
        there = around.remainder(bins) if self.circular else around.clamp(0, bins - 1)
        sizes = uniform + free * parts.gather(2, there.unsqueeze(1).expand(-1, 2, *[-1] * t.ndim))
        widths, heights = sizes.unbind(1)
        # A masked sum: the gradient of a cumulative sum costs three passes more.
        before = (parts * passed.unsqueeze(1).to(t.dtype)).sum(2)
        x, z = (free * before + (uniform * k.to(t.dtype) - bound)).unbind(1)

        s_before, s, s_after = (heights / widths).unbind(1)
        means = torch.stack([s_before * s / (s_before + s), s * s_after / (s + s_after)], 1) * 2
        if self.circular:
            raw = raw_slopes.gather(1, there[:, 1:])
        else:
            raw = raw_slopes.gather(1, around[:, :2].clamp(0, bins - 2))
        limit = math.log(self.max_ratio)
        slopes = means * (limit * torch.tanh(raw / limit)).exp()
        if not self.circular:
            slopes = torch.where((around[:, :2] < 0) | (around[:, :2] == bins - 1), 1.0, slopes)
        return x, z, widths[:, 1], heights[:, 1], *slopes.unbind(1)


def _within_bin(position: Tensor) -> Tensor:
    """Clamped to [0, 1], which only rounding leaves, and the gradient as if it were not: a clamp would cut it."""
    return position + (position.clamp(0, 1) - position).detach()
