"""Planar flow: one smooth step across a hyperplane."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.bijectors.base import Bijector, log_det_dtype
from waveflow.bijectors.roots import increasing_root
from waveflow.context import Context

_LEAST_SLOPE = 0.01


def above_minus_one(raw: Tensor) -> Tensor:
    """An increasing map of the reals onto (-0.99, inf) with 0 at 0.

    For maps of slope 1 + product: positive, and far enough from zero to be inverted in float32.
    """
    least = 1 - _LEAST_SLOPE
    return F.softplus(raw + math.log(math.expm1(least))) - least


class Planar(Bijector):
    r"""Push everything along u by how far it is beyond a hyperplane (Rezende & Mohamed, 2015; arXiv:1505.05770).

    .. math::
        z = x + \hat u \tanh(w^T x + b), \qquad
        \log\left|\det \frac{\partial z}{\partial x}\right| = \log\big(1 + w^T \hat u\, (1 - \tanh^2(w^T x + b))\big)

    by the matrix determinant lemma. It is invertible where w.u > -1; :math:`\hat u` is u with its part along w changed
    such that it is, as in the paper's appendix, but -0.99 at the least and unchanged at 0. The inverse
    first finds w.x, the root of an increasing function of one number; with u = 0 as at the start the map is the
    identity. What is quick is ``forward``: a flow that is to be sampled (and learned by reverse KL) takes
    ``Inverse(Planar(features))``.

    Args:
        features: D.
        generator: of the random w that it starts with.

    Shape:
        ``(B, D)`` to ``(B, D)``.

    Example:
        >>> z, log_det = Planar(2)(torch.tensor([[1.0, 2.0]]))
        >>> z.tolist(), log_det.tolist()
        ([[1.0, 2.0]], [0.0])
    """

    def __init__(self, features: int, generator: torch.Generator | None = None):
        super().__init__()
        self.event_shape = (features,)
        self.w = nn.Parameter(torch.randn(features, generator=generator) / features**0.5)
        self.u = nn.Parameter(torch.zeros(features))
        self.b = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        w, u, b, product = self._constrained(log_det_dtype(x))
        wide = x.to(w.dtype)
        tanh = ((wide * w).sum(1) + b).tanh()
        return (wide + tanh.unsqueeze(1) * u).to(x.dtype), torch.log1p(product * (1 - tanh * tanh))

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        w, u, b, product = self._constrained(log_det_dtype(z))
        wide = z.to(w.dtype)
        along = (wide * w).sum(1)

        def beyond(t: Tensor) -> tuple[Tensor, Tensor]:
            tanh = (t + b).tanh()
            return t + product * tanh - along, 1 + product * (1 - tanh * tanh)

        tanh = (increasing_root(beyond, along - product.abs(), along + product.abs()) + b).tanh()
        return (wide - tanh.unsqueeze(1) * u).to(z.dtype), -torch.log1p(product * (1 - tanh * tanh))

    def _constrained(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w, u with w.u above -1, b, and that w.u."""
        w, u, b = self.w.to(dtype), self.u.to(dtype), self.b.to(dtype)
        product = above_minus_one((w * u).sum())
        return w, u + (product - (w * u).sum()) * w / (w * w).sum(), b, product
