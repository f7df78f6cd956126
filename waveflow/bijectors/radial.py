"""Radial flow: everything moved towards or away from a centre."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.bijectors.base import Bijector, log_det_dtype
from waveflow.bijectors.planar import above_minus_one
from waveflow.context import Context


class Radial(Bijector):
    r"""Contract or expand around a centre c, most strongly near it (Rezende & Mohamed, 2015; arXiv:1505.05770).

    .. math::
        z = x + \frac{\beta}{\alpha + r} (x - c), \quad r = |x - c|, \qquad
        \log|\det| = (D - 1) \log\Big(1 + \frac{\beta}{\alpha + r}\Big)
        + \log\Big(1 + \frac{\alpha \beta}{(\alpha + r)^2}\Big)

    with :math:`\alpha > 0` and :math:`\beta > -0.99\, \alpha` kept by their parameters; it starts as the identity,
    :math:`\beta = 0`. Both directions are closed formulas: the radius of x is the positive root of a quadratic.

    Args:
        features: D.

    Shape:
        ``(B, D)`` to ``(B, D)``.
    """

    def __init__(self, features: int):
        super().__init__()
        self.event_shape = (features,)
        self.centre = nn.Parameter(torch.zeros(features))
        self.raw_alpha = nn.Parameter(torch.tensor(math.log(math.expm1(1.0))))
        self.raw_beta = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        centre, alpha, beta = self._constrained(log_det_dtype(x))
        away = x.to(centre.dtype) - centre
        reach = alpha + torch.linalg.vector_norm(away, dim=1)
        return (centre + away * (1 + beta / reach).unsqueeze(1)).to(x.dtype), self._log_det(reach, alpha, beta)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        centre, alpha, beta = self._constrained(log_det_dtype(z))
        away = z.to(centre.dtype) - centre
        distance = torch.linalg.vector_norm(away, dim=1)
        # r^2 + p r - alpha distance = 0, its positive root without cancellation
        p = alpha + beta - distance
        root = (p * p + 4 * alpha * distance).sqrt()
        r = torch.where(p > 0, 2 * alpha * distance / (root + p.abs()), (root - p) / 2)
        reach = alpha + r
        x = centre + away * (reach / (reach + beta)).unsqueeze(1)
        return x.to(z.dtype), -self._log_det(reach, alpha, beta)

    def _constrained(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        alpha = F.softplus(self.raw_alpha.to(dtype))
        return self.centre.to(dtype), alpha, alpha * above_minus_one(self.raw_beta.to(dtype))

    def _log_det(self, reach: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        return (len(self.centre) - 1) * torch.log1p(beta / reach) + torch.log1p(alpha * beta / (reach * reach))
