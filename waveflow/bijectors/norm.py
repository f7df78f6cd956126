"""Normalisation of channels with statistics of the first batch."""

from torch import Tensor

from waveflow.bijectors.base import Bijector, log_det_dtype, zero_log_det
from waveflow.context import Context
from waveflow.first_batch import FirstBatchScale


class ActNorm(FirstBatchScale, Bijector):
    r"""A scale and a shift for each channel, set so that the first training batch comes out standardised.

    .. math::
        z_{c,p} = (x_{c,p} + b_c) \exp(s_c), \qquad \log|\det| = P \sum_c s_c

    with P positions (Glow: arXiv:1807.03039, section 3.1). The initialisation happens once: in the first ``forward`` in
    training mode, with statistics over all ranks where training is distributed. Whether it has happened is part of
    the state dict. Until then the map is the identity.

    Args:
        channels: C.

    Shape:
        ``(B, C, ...)`` to ``(B, C, ...)``.

    Raises:
        ValueError: if the first batch is empty.
    """

    constant_log_det = True

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        if self.awaits():
            self.initialize(x)
        dtype = log_det_dtype(x)
        shift, log_scale = self._per_position(x)
        return ((x.to(dtype) + shift) * log_scale.exp()).to(x.dtype), self._log_det(x)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        dtype = log_det_dtype(z)
        shift, log_scale = self._per_position(z)
        return (z.to(dtype) * (-log_scale).exp() - shift).to(z.dtype), -self._log_det(z)

    def expects(self, event: tuple[int, ...], inverse: bool) -> str | None:
        c = self.shift.numel()
        return None if event[0] == c else f"{c} channels (C, ...)"

    def _per_position(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (x.ndim - 2))
        dtype = log_det_dtype(x)
        return self.shift.to(dtype).view(shape), self.log_scale.to(dtype).view(shape)

    def _log_det(self, x: Tensor) -> Tensor:
        positions = x.shape[2:].numel()
        return positions * self.log_scale.to(log_det_dtype(x)).sum() + zero_log_det(x)
