"""The order of positions turned round."""

from torch import Tensor

from waveflow.bijectors.base import Bijector, zero_log_det
from waveflow.context import Context


class Flip(Bijector):
    """Every axis of the event backwards, so that what an autoregressive layer saw last the next one sees first.

    Shape:
        ``(B, ...)`` to ``(B, ...)``; any event shape.

    Example:
        >>> import torch
        >>> Flip()(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))[0].tolist()
        [[[4.0, 3.0], [2.0, 1.0]]]
    """

    constant_log_det = True

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return x.flip(tuple(range(1, x.ndim))), zero_log_det(x)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self.forward(z, context)
