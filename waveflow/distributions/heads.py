"""Heads: what a network's answer says about one discrete number."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.errors import InputError

_COLDEST = 1e-6  # where temperature 0, a limit, is computed
_BITS = 4  # found at once by a search: few large looks at a distribution function are faster than many small ones


class Head(nn.Module):
    r"""A distribution of single integers 0 ... ``values`` - 1, with ``params`` parameters for each of them.

    The discrete sibling of :class:`~waveflow.bijectors.univariate.Univariate`: x (B, \*event) goes with params
    (B, P, \*event), and all arithmetic is done in float32 or wider, whatever the dtype of ``params``. From noise u,
    uniform on (0, 1), :meth:`inverse` makes values, so that the solvers of autoregressive maps sample discrete models:
    the same noise gives the same values whatever the solver.

    ``temperature`` sharpens (below 1) or flattens what is drawn and scored; 0 stands for the limit.

    Attributes:
        params: P.
        values: how many values there are.
    """

    params: int
    values: int

    def log_prob(self, x: Tensor, params: Tensor, temperature: float = 1.0) -> Tensor:
        r"""log P(x) in nats, (B, \*event), float32 or wider; x holds whole numbers of any dtype."""
        raise NotImplementedError

    def quantile(self, u: Tensor, params: Tensor, temperature: float = 1.0) -> Tensor:
        r"""The smallest x with P(X <= x) >= u, (B, \*event), as floats of u's dtype."""
        raise NotImplementedError

    def inverse(self, u: Tensor, params: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """x = quantile(u) and its log P(x): u is spread evenly over as much of (0, 1) as x is probable."""
        x = self.quantile(u, params, temperature)
        return x, self.log_prob(x, params, temperature)


def _widen(params: Tensor) -> Tensor:
    return params.to(torch.promote_types(params.dtype, torch.float32))


class Categorical(Head):
    """A logit for each value (PixelRNN: van den Oord et al., 2016; arXiv:1601.06759, section 3.2).

    At zero parameters all values are equally probable. Temperature divides the logits.

    Args:
        values: how many; at least 2.

    Raises:
        InputError: for fewer than 2 values.

    Example:
        >>> Categorical(4).log_prob(torch.tensor([[3]]), torch.zeros(1, 4, 1)).exp().item()
        0.25
    """

    def __init__(self, values: int = 256):
        super().__init__()
        self.values = self.params = _at_least_two(values, type(self).__name__)

    def log_prob(self, x: Tensor, params: Tensor, temperature: float = 1.0) -> Tensor:
        return -F.cross_entropy(self._logits(params, temperature), x.long(), reduction="none")

    def quantile(self, u: Tensor, params: Tensor, temperature: float = 1.0) -> Tensor:
        below = self._logits(params, temperature).softmax(1).cumsum(1)
        # Of what the sum came to: rounded below 1, it would give the last value to u above it, however improbable.
        target = u.unsqueeze(1) * below[:, -1:]
        return (below[:, :-1] < target).sum(1).to(u.dtype)

    def extra_repr(self) -> str:
        return f"values={self.values}"

    def _logits(self, params: Tensor, temperature: float) -> Tensor:
        logits = _widen(params)
        return logits if temperature == 1 else logits / max(temperature, _COLDEST)


class Bernoulli(Head):
    """Zero or one, by the logit of one. At a zero parameter both are equally probable; temperature divides the logit.

    Example:
        >>> Bernoulli().quantile(torch.tensor([[0.4, 0.6]]), torch.zeros(1, 1, 2)).tolist()
        [[0.0, 1.0]]
    """

    params = 1
    values = 2

    def log_prob(self, x: Tensor, params: Tensor, temperature: float = 1.0) -> Tensor:
        logit = self._logit(params, temperature)
        return F.logsigmoid(torch.where(x > 0, logit, -logit))

    def quantile(self, u: Tensor, params: Tensor, temperature: float = 1.0) -> Tensor:
        return (u > torch.sigmoid(-self._logit(params, temperature))).to(u.dtype)

    def _logit(self, params: Tensor, temperature: float) -> Tensor:
        return _widen(params)[:, 0] / max(temperature, _COLDEST)


class DiscretisedMixtureOfLogistics(Head):
    r"""A mixture of logistics, rounded to whole values (PixelCNN++: Salimans et al., 2017; arXiv:1701.05517).

    With the values at even distances 2h on [-1, 1], y the place of x, and all that lies beyond the first and the last
    value counted as theirs,

    .. math::
        P(x) = \sum_i \pi_i \left[\sigma\Big(\frac{y + h - \mu_i}{s_i}\Big)
        - \sigma\Big(\frac{y - h - \mu_i}{s_i}\Big)\right], \qquad
        \sigma(b) - \sigma(a) = \sigma(b)\, \sigma(-a)\, (1 - e^{a - b}),

    where the right form is a sum of logarithms none of which cancels. Parameters: [K logits of pi | K shifts of the
    means | K raw log s]. At zero the means lie evenly on [-1, 1] (components that are equal would stay equal) and the
    mixture is nearly flat; scales are within a factor of exp(8) of that. Temperature divides the logits of pi
    and multiplies s. A value is drawn by one u, digit by digit to the base 16: two looks at the mixture's distribution
    function for 256 values.

    Args:
        components: K.
        values: how many; at least 2.

    Raises:
        InputError: for no component, or fewer than 2 values.
    """

    def __init__(self, components: int = 10, values: int = 256):
        super().__init__()
        if components < 1:
            raise InputError(f"DiscretisedMixtureOfLogistics expects at least 1 component, got {components}")
        self.components = components
        self.values = _at_least_two(values, type(self).__name__)
        self.params = 3 * components

    def log_prob(self, x: Tensor, params: Tensor, temperature: float = 1.0) -> Tensor:
        log_weights, means, log_scales = self._unpack(params, temperature)
        x = x.to(means.dtype).unsqueeze(1)
        y, half = self._place(x), 1 / (self.values - 1)
        per_scale = (-log_scales).exp()
        first, last = x <= 0, x >= self.values - 1
        # The distances in two steps: y - mean is what cancels, and h must not be lost in it.
        from_above = F.logsigmoid((y - means + half) * per_scale)
        from_below = F.logsigmoid(-(y - means - half) * per_scale)
        width = (-torch.expm1(-2 * half * per_scale)).log()
        inside = torch.where(last, 0.0, from_above) + torch.where(first, 0.0, from_below)
        return (log_weights + inside + torch.where(first | last, 0.0, width)).logsumexp(1)

    def quantile(self, u: Tensor, params: Tensor, temperature: float = 1.0) -> Tensor:
        log_weights, means, log_scales = self._unpack(params, temperature)
        weights, per_scale, half = log_weights.exp(), (-log_scales).exp(), 1 / (self.values - 1)
        wide = u.to(means.dtype)
        # Of the two tails the smaller is compared, which knows 1 - 1e-20 from 1.
        upper = wide > 0.5
        sign, tail = torch.where(upper, -1.0, 1.0).unsqueeze(1), torch.where(upper, 1 - wide, wide)
        digits = torch.arange(1, 2**_BITS, dtype=wide.dtype, device=wide.device)
        means, per_scale, weights = means.unsqueeze(-1), per_scale.unsqueeze(-1), weights.unsqueeze(-1)
        upper, sign, tail, x = upper.unsqueeze(-1), sign.unsqueeze(-1), tail.unsqueeze(-1), torch.zeros_like(wide)
        for shift in reversed(range(0, (self.values - 1).bit_length(), _BITS)):
            below = x.unsqueeze(-1) + (2**shift * digits - 1)
            distance = (self._place(below).unsqueeze(1) - means + half) * per_scale
            mass = (weights * torch.sigmoid(sign * distance)).sum(1)
            x = x + 2**shift * torch.where(upper, mass > tail, mass < tail).sum(-1)
        return x.clamp_max(self.values - 1).to(u.dtype)

    def extra_repr(self) -> str:
        return f"components={self.components}, values={self.values}"

    def _place(self, x: Tensor) -> Tensor:
        return x * (2 / (self.values - 1)) - 1

    def _unpack(self, params: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        k, temperature = self.components, max(temperature, _COLDEST)
        logits, shifts, raw_scales = _widen(params).split(k, 1)
        places = (2 * torch.arange(k, dtype=shifts.dtype, device=shifts.device) + 1) / k - 1
        means = shifts + places.reshape(-1, *[1] * (shifts.ndim - 2))
        log_scales = 8 * torch.tanh(raw_scales / 8) + math.log(temperature / (2 * k))
        return (logits / temperature).log_softmax(1), means, log_scales


def _at_least_two(values: int, name: str) -> int:
    if values < 2:
        raise InputError(f"{name} expects at least 2 values, got {values}")
    return values
