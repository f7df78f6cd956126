"""Normalisation of channels with running averages of the statistics of batches."""

import torch
import torch.distributed
from torch import Tensor

from waveflow.bijectors.base import Bijector, log_det_dtype, zero_log_det
from waveflow.context import Context
from waveflow.errors import InputError
from waveflow.first_batch import is_suspended


class BatchNorm(Bijector):
    r"""Channels standardised by running averages of their mean and variance.

    .. math::
        z_{c,p} = \frac{x_{c,p} - \tilde\mu_c}{\sqrt{\tilde\sigma_c^2 + \epsilon}}, \qquad
        \log|\det| = -\frac{P}{2} \sum_c \log(\tilde\sigma_c^2 + \epsilon), \qquad
        \tilde\mu \leftarrow (1 - m)\, \tilde\mu + m\, \mu_{\text{batch}}

    with P positions, and the variance alike (RealNVP: arXiv:1605.08803, section 3.7 and appendix E). In training, each
    ``forward`` takes its batch into the averages first, with statistics over all ranks, and uses them then; gradients
    flow through the statistics of the batch. The averages begin as the statistics of the first batch. In evaluation,
    and in ``inverse`` always, they are constants. Batches that are empty or not finite leave them alone.

    The items of a batch thus see each other in training, and a call cannot be repeated: not for
    ``Chain(memory="invert")``, for which there is :class:`ActNorm`.

    Args:
        channels: C.
        momentum: m, weight of the newest batch, in (0, 1].
        eps: added to the variance.

    Shape:
        ``(B, C, ...)`` to ``(B, C, ...)``.

    Raises:
        InputError: for another momentum; from the backward pass of ``memory="invert"`` in training.
    """

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__()
        if not 0 < momentum <= 1:
            raise InputError(f"BatchNorm expects a momentum in (0, 1], got {momentum}")
        self.momentum, self.eps = momentum, eps
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        mean, variance = self._renewed(x) if self.training and x.numel() else self._stored(x)
        wide, shape = x.to(mean.dtype), (-1, *[1] * (x.ndim - 2))
        z = (wide - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        return z.to(x.dtype), self._log_det(x, variance)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        if self.training and is_suspended():
            raise InputError('BatchNorm cannot be trained under memory="invert": use ActNorm, or memory="store"')
        mean, variance = self._stored(z)
        wide, shape = z.to(mean.dtype), (-1, *[1] * (z.ndim - 2))
        x = wide * (variance + self.eps).sqrt().view(shape) + mean.view(shape)
        return x.to(z.dtype), -self._log_det(z, variance)

    def expects(self, event: tuple[int, ...], inverse: bool) -> str | None:
        c = self.mean.numel()
        return None if event[0] == c else f"{c} channels (C, ...)"

    def _stored(self, x: Tensor) -> tuple[Tensor, Tensor]:
        dtype = log_det_dtype(x)
        return self.mean.to(dtype), self.variance.to(dtype)

    def _renewed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The averages with the statistics of x in them, which are also stored."""
        values = x.to(log_det_dtype(x)).transpose(0, 1).flatten(1)
        count = _over_ranks(torch.full_like(values[:, 0], values.shape[1]))
        mean = _over_ranks(values.sum(1)) / count
        variance = _over_ranks((values - mean[:, None]).square().sum(1)) / count
        weight = torch.ones_like(mean).masked_fill(self.initialized, self.momentum)
        old_mean, old_variance = self._stored(x)
        mean = torch.lerp(old_mean, mean, weight)
        variance = torch.lerp(old_variance, variance, weight)
        with torch.no_grad():
            usable = (mean.isfinite() & variance.isfinite()).all()
            self.mean.copy_(torch.where(usable, mean, self.mean))
            self.variance.copy_(torch.where(usable, variance, self.variance))
            self.initialized.logical_or_(usable)
        return mean, variance

    def _log_det(self, x: Tensor, variance: Tensor) -> Tensor:
        return -0.5 * x.shape[2:].numel() * (variance + self.eps).log().sum() + zero_log_det(x)


def _over_ranks(sums: Tensor) -> Tensor:
    """The sum over all processes, differentiably."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from torch.distributed.nn.functional import all_reduce

        return all_reduce(sums)
    return sums
