"""From an interval to the whole line."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from waveflow.bijectors.base import Bijector, log_det_dtype, sum_event
from waveflow.context import Context
from waveflow.errors import InputError


class Logit(Bijector):
    r"""Elementwise, from numbers in [0, 1) to numbers of any size.

    .. math::
        z = \operatorname{logit}(\alpha + (1 - 2\alpha) x), \qquad
        \log|\det| = \sum \log(1 - 2\alpha) + \log(1 + e^z) + \log(1 + e^{-z})

    It keeps a flow's density of pixels within the range that pixels have, up to a margin (RealNVP: arXiv:1605.08803,
    section 4.1): the inverse gives numbers between :math:`-\alpha / (1 - 2\alpha)` and 1 plus as much.

    Args:
        alpha: how far the ends of the interval stay from 0 and 1, in [0, 0.5). With 0, x = 0 maps to minus infinity.

    Shape:
        ``(B, ...)`` to ``(B, ...)``; any event shape.

    Raises:
        InputError: for any other ``alpha``.

    Example:
        >>> z, log_det = Logit(0.0)(torch.tensor([[0.5]]))
        >>> z.item(), round(log_det.exp().item(), 4)
        (0.0, 4.0)
    """

    def __init__(self, alpha: float = 0.05):
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise InputError(f"Logit expects alpha in [0, 0.5), got {alpha}")
        self.alpha = alpha

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        wide = x.to(log_det_dtype(x))
        p = self.alpha + (1 - 2 * self.alpha) * wide
        # 1 - p from 1 - x, which is exact near 1, where p itself has been rounded.
        z = p.log() - (self.alpha + (1 - 2 * self.alpha) * (1 - wide)).log()
        return z.to(x.dtype), self._log_det(z)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        wide = z.to(log_det_dtype(z))
        x = (torch.sigmoid(wide) - self.alpha) / (1 - 2 * self.alpha)
        return x.to(z.dtype), -self._log_det(wide)

    def _log_det(self, z: Tensor) -> Tensor:
        return sum_event(F.softplus(z) + F.softplus(-z) + math.log(1 - 2 * self.alpha))
