"""Standardisation by the statistics of data, as the first map of a model of tables."""

import torch
from torch import Tensor

from waveflow.bijectors.base import Bijector, log_det_dtype, zero_log_det
from waveflow.context import Context
from waveflow.errors import InputError


class ZScore(Bijector):
    r"""z = (x - mean) / std with the means and standard deviations of data: stored, not learned.

    .. math::
        \log|\det| = -\sum_i \log \mathrm{std}_i

    Put first, it lets a model take and give data in their own units, its log-densities included, while the layers
    behind it see numbers around 1. At first mean 0 and std 1; :meth:`fit` is the only thing that changes them.

    Args:
        features: D.

    Shape:
        ``(B, D)`` to ``(B, D)``.

    Example:
        >>> zscore = ZScore(1)
        >>> zscore.fit(torch.tensor([[1.0], [3.0]]))
        >>> zscore(torch.tensor([[4.0]]))[0].item()
        2.0
    """

    constant_log_det = True

    def __init__(self, features: int):
        super().__init__()
        self.event_shape = (features,)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Take the statistics of x (N, D), computed in float64; std is that of the population (1 / N).

        Raises:
            InputError: for another number of features, no rows, values that are not finite, or a feature that is
                constant.
        """
        if x.ndim != 2 or x.shape[1:] != self.event_shape or not len(x):
            raise InputError(f"ZScore expects rows of {self.event_shape[0]} features, got shape {tuple(x.shape)}")
        wide = x.double()
        mean, std = wide.mean(0), wide.std(0, correction=0)
        if not wide.isfinite().all():
            raise InputError("ZScore expects finite values to fit to, got some that are not")
        if not (std > 1e-12 * wide.abs().amax(0)).all():
            constant = (~(std > 1e-12 * wide.abs().amax(0))).nonzero().flatten().tolist()
            raise InputError(f"ZScore expects features that vary, got constant ones: {constant}")
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        mean, std = self._statistics(x)
        return ((x.to(mean.dtype) - mean) / std).to(x.dtype), zero_log_det(x) - std.log().sum()

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        mean, std = self._statistics(z)
        return (z.to(mean.dtype) * std + mean).to(z.dtype), zero_log_det(z) + std.log().sum()

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean.to(log_det_dtype(x)), self.std.to(log_det_dtype(x))
