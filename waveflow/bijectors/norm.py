"""Normalisation of channels with statistics of the first batch."""

import torch
import torch.distributed
from torch import Tensor, nn

from waveflow.bijectors.base import Bijector, log_det_dtype, zero_log_det
from waveflow.bijectors.reversible import is_rebuilding
from waveflow.context import Context


class ActNorm(Bijector):
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

    def __init__(self, channels: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialized", torch.tensor(False))
        self._initialized = False  # a plain twin of the buffer, to be read without a device sync or a graph break

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        if self.training and not self._initialized and not is_rebuilding():
            self.initialize(x)
        dtype = log_det_dtype(x)
        shift, log_scale = self._per_position(x)
        return ((x.to(dtype) + shift) * log_scale.exp()).to(x.dtype), self._log_det(x)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        dtype = log_det_dtype(z)
        shift, log_scale = self._per_position(z)
        return (z.to(dtype) * (-log_scale).exp() - shift).to(z.dtype), -self._log_det(z)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set scale and shift from the statistics of x (B, C, ...) over batch and positions."""
        values = x.detach().double().transpose(0, 1).flatten(1)
        total = values.sum(1)
        sums = torch.stack([torch.full_like(total, values.shape[1]), total, values.square().sum(1)])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        if not (sums[0] > 0).all():
            raise ValueError("ActNorm expects a first batch to be initialised with, got an empty one")
        mean = sums[1] / sums[0]
        std = (sums[2] / sums[0] - mean.square()).clamp_min(0).sqrt()
        self.shift.copy_(-mean)
        self.log_scale.copy_(-(std + 1e-6).log())
        self.initialized.fill_(True)
        self._initialized = True

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

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._initialized = bool(self.initialized)
