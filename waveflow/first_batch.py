"""Scales and shifts that are set from the first training batch, in bijectors and in networks alike."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
from torch import Tensor, nn

_suspended = False


@contextmanager
def no_first_batch() -> Iterator[None]:
    """Within it no layer takes what it sees for data to initialise from: latents, or activations that are rebuilt."""
    global _suspended
    before, _suspended = _suspended, True
    try:
        yield
    finally:
        _suspended = before


def is_suspended() -> bool:
    """Whether :func:`no_first_batch` holds."""
    return _suspended


class FirstBatchScale(nn.Module):
    r"""A scale and a shift for each channel, :math:`(x + b_c) \exp(s_c)`, that standardise the first training batch.

    Whether this has happened is part of the state dict; until then the map is the identity. A layer that derives from
    it, or holds one, asks :meth:`awaits` in its forward pass and, if so, hands the batch to :meth:`initialize`.

    Args:
        channels: C.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialized", torch.tensor(False))
        self._initialized = False  # a plain twin of the buffer, to be read without a device sync or a graph break

    def awaits(self) -> bool:
        """Whether the next batch is the first one."""
        return self.training and not self._initialized and not _suspended

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set scale and shift from the statistics of x (B, C, ...) over batch, positions and, if distributed, ranks.

        Raises:
            ValueError: if x is empty.
        """
        values = x.detach().double().transpose(0, 1).flatten(1)
        total = values.sum(1)
        sums = torch.stack([torch.full_like(total, values.shape[1]), total, values.square().sum(1)])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        if not (sums[0] > 0).all():
            raise ValueError(f"{type(self).__name__} expects a first batch to be initialised with, got an empty one")
        mean = sums[1] / sums[0]
        std = (sums[2] / sums[0] - mean.square()).clamp_min(0).sqrt()
        self.shift.copy_(-mean)
        self.log_scale.copy_(-(std + 1e-6).log())
        self.initialized.fill_(True)
        self._initialized = True

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._initialized = bool(self.initialized)
