"""The distribution function of a mixture of logistics: univariate maps with several steps."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from waveflow.bijectors.base import log_det_dtype
from waveflow.bijectors.roots import increasing_root
from waveflow.bijectors.univariate import LOG_SCALES, Univariate


class MixtureOfLogisticsCDF(Univariate):
    r"""The logit of a mixture's distribution function (Flow++: Ho et al., 2019; arXiv:1902.00275, section 3.2).

    .. math::
        z = a\, \operatorname{logit}\Big(\sum_i \pi_i\, \sigma\Big(\frac{x - \mu_i}{s_i}\Big)\Big) + b

    Parameters: [K logits of pi | K means | K raw log s | b | raw log a]; scales are bounded as ``tanh_exp`` of
    ``LOG_SCALES``. All is computed by logarithms of both tails, where z goes on like a straight line of slope a / s. At
    zero the means lie evenly on [-1, 1] instead of all at one place, since components that are equal would be
    taught the same and stay equal: the map is the identity but for at most 0.17. The inverse is a root between
    the smallest and the largest of mu_i + s_i z, see :func:`~waveflow.bijectors.roots.increasing_root`.

    Args:
        components: K.

    Raises:
        ValueError: for no component.

    Example:
        >>> mixture = MixtureOfLogisticsCDF(components=1)
        >>> z, log_derivative = mixture(torch.tensor([[2.0]]), torch.zeros(1, mixture.params, 1))
        >>> round(z.item(), 5), round(log_derivative.item(), 5)
        (2.0, 0.0)
    """

    def __init__(self, components: int = 8):
        super().__init__()
        if components < 1:
            raise ValueError(f"MixtureOfLogisticsCDF expects at least 1 component, got {components}")
        self.components = components
        self.params = 3 * components + 2

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        mixture, shift, log_scale = self._unpack(x, params)
        z, log_derivative = _logit_cdf(x.to(shift.dtype), *mixture)
        return (z * log_scale.exp() + shift).to(x.dtype), log_derivative + log_scale

    def inverse(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        mixture, shift, log_scale = self._unpack(z, params)
        x, log_derivative = _quantile((z.to(shift.dtype) - shift) * (-log_scale).exp(), *mixture)
        return x.to(z.dtype), log_derivative - log_scale

    def extra_repr(self) -> str:
        return f"components={self.components}"

    def _unpack(self, x: Tensor, params: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
        params = params.to(log_det_dtype(x))
        k, bounded = self.components, LOG_SCALES["tanh_exp"]
        logits, means, raw_scales = params[:, : 3 * k].split(k, 1)
        means = means + _places(means)
        return (logits.log_softmax(1), means, bounded(raw_scales)), params[:, 3 * k], bounded(params[:, 3 * k + 1])


class MixtureOfLogistics(Univariate):
    r"""The logit of a mixture's distribution function alone: with a standard logistic base, the mixture itself.

    .. math::
        z = \operatorname{logit} F(x), \quad F(x) = \sum_i \pi_i\, \sigma\Big(\frac{x - \mu_i}{s_i}\Big)
        \quad\Rightarrow\quad \log p(x) = \log \pi_Z(z) + \log \frac{dz}{dx} = \log F'(x)

    for :class:`~waveflow.distributions.StandardLogistic` as pi_Z (the continuous form of the output of PixelCNN++,
    arXiv:1701.05517, as teachers of sound have it: Parallel WaveNet, arXiv:1711.10433). Parameters: [K logits of pi |
    K shifts of the means | K raw log s], log s = max(raw - log K, -9). At zero the means lie evenly on [-1, 1] and the
    mixture is nearly flat there. Tails and inverse as of :class:`MixtureOfLogisticsCDF`.

    Args:
        components: K.

    Raises:
        ValueError: for no component.

    Example:
        >>> z, log_derivative = MixtureOfLogistics(components=1)(torch.tensor([[2.0]]), torch.zeros(1, 3, 1))
        >>> z.item(), round(log_derivative.item(), 5)
        (2.0, 0.0)
    """

    def __init__(self, components: int = 10):
        super().__init__()
        if components < 1:
            raise ValueError(f"MixtureOfLogistics expects at least 1 component, got {components}")
        self.components = components
        self.params = 3 * components

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        mixture = self.mixture(params.to(log_det_dtype(x)))
        z, log_derivative = _logit_cdf(x.to(mixture[0].dtype), *mixture)
        return z.to(x.dtype), log_derivative

    def inverse(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        mixture = self.mixture(params.to(log_det_dtype(z)))
        x, log_derivative = _quantile(z.to(mixture[0].dtype), *mixture)
        return x.to(z.dtype), log_derivative

    def mixture(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""log pi, mu and log s that ``params`` (B, 3 K, \*event) mean, each (B, K, \*event)."""
        logits, means, raw_scales = params.split(self.components, 1)
        log_scales = LOG_SCALES["floored"](raw_scales - math.log(self.components))
        return logits.log_softmax(1), means + _places(means), log_scales

    def extra_repr(self) -> str:
        return f"components={self.components}"


def _places(means: Tensor) -> Tensor:
    """Places of K components (B, K, *event), evenly on [-1, 1]: those that are equal would stay equal."""
    k = means.shape[1]
    places = (2 * torch.arange(k, dtype=means.dtype, device=means.device) + 1) / k - 1
    return places.reshape(-1, *[1] * (means.ndim - 2))


def _quantile(target: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """x with logit F(x) = target, and the logarithm of its derivative."""

    def beyond(x: Tensor) -> tuple[Tensor, Tensor]:
        value, log_slope = _logit_cdf(x, log_weights, means, log_scales)
        return value - target, log_slope.exp()

    single = means + log_scales.exp() * target.unsqueeze(1)  # where each component by itself would have it
    x = increasing_root(beyond, single.amin(1), single.amax(1))
    return x, -_logit_cdf(x, log_weights, means, log_scales)[1]


def _logit_cdf(x: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """logit F(x) and the logarithm of its derivative, f / (F (1 - F)), for x (*batch) and K components on axis 1."""
    u = (x.unsqueeze(1) - means) * (-log_scales).exp()
    log_below = F.logsigmoid(u)
    log_above = log_below - u
    below, above = (log_weights + log_below).logsumexp(1), (log_weights + log_above).logsumexp(1)
    # f over the smaller tail first, as a mean of the components' own ratios: the two are equally small.
    right = (above < below).unsqueeze(1)
    small, large = torch.where(right, log_above, log_below), torch.where(right, log_below, log_above)
    share = (log_weights + small).log_softmax(1)
    return below - above, (share + large - log_scales).logsumexp(1) - torch.maximum(below, above)
