"""An elementwise map whose parameters follow from the context alone."""

from math import prod

import torch
from torch import Tensor, nn

from waveflow.bijectors.base import Bijector, sum_event
from waveflow.bijectors.univariate import Univariate
from waveflow.context import Context, Ragged


class ConditionalElementwise(Bijector):
    r"""A univariate map whose parameters are an affine function of a context vector.

    .. math::
        z_i = u(x_i; \theta_i + (V c)_i)

    At the end of a flow, with ``Standardise`` and a label as one-hot c, it is a prior with a mean and a standard
    deviation for each class (Glow: arXiv:1807.03039, the class-conditional model). Both parts start at zero.

    Args:
        univariate: the map.
        event_shape: (C, ...); entries of 1 are shared along that axis, so (C, 1, 1) is a map per channel.
        context: size of c.

    Shape:
        x ``(B, *event)``, each axis of event as in ``event_shape`` or, where that is 1, of any length; context ``(B,
        context)``.

    Raises:
        ValueError: (both directions) for a context of another size.
    """

    needs_context = True

    def __init__(self, univariate: Univariate, event_shape: tuple[int, ...], context: int):
        super().__init__()
        self.univariate = univariate
        self.event_shape = tuple(None if n == 1 else n for n in event_shape)
        self.raw = nn.Parameter(torch.zeros(univariate.params, *event_shape))
        self.by_context = nn.Parameter(torch.zeros(univariate.params * prod(event_shape), context))
        self.constant_log_det = univariate.constant_log_det

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        z, log_derivative = self.univariate(x, self._params(x, context))
        return z, sum_event(log_derivative)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        x, log_derivative = self.univariate.inverse(z, self._params(z, context))
        return x, sum_event(log_derivative)

    def _params(self, x: Tensor, context: Context) -> Tensor:
        size = self.by_context.shape[1]
        if isinstance(context, Ragged) or context.ndim != 2 or context.shape[1] != size:
            got = "a padded batch" if isinstance(context, Ragged) else tuple(context.shape)
            raise ValueError(f"ConditionalElementwise expects a context (B, {size}), got {got}")
        params = self.raw + (context @ self.by_context.T).unflatten(1, self.raw.shape)
        return params.expand(-1, -1, *x.shape[1:])
