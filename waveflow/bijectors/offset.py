"""A fixed translation."""

from torch import Tensor

from waveflow.bijectors.base import Bijector, zero_log_det
from waveflow.context import Context


class Offset(Bijector):
    """z = x + offset, the same constant for every number: centres pixels of [0, 1) around 0.

    Args:
        offset: what is added, not learned.

    Shape:
        ``(B, ...)`` to ``(B, ...)``; any event shape.

    Example:
        >>> import torch
        >>> Offset(-0.5)(torch.ones(1, 2))[0].tolist()
        [[0.5, 0.5]]
    """

    constant_log_det = True

    def __init__(self, offset: float):
        super().__init__()
        self.offset = float(offset)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return x + self.offset, zero_log_det(x)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return z - self.offset, zero_log_det(z)

    def extra_repr(self) -> str:
        return str(self.offset)
