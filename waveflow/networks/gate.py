"""The gate of WaveNet, tanh(a) sigmoid(b), in the form that is fastest on a CPU."""

import torch
from torch import Tensor

WIDE = (torch.float32, torch.float64)
"""Dtypes that :func:`gated` loses nothing in."""


def gate_factors(channels: int) -> Tensor:
    """What the 2 ``channels`` answers [a | b] are multiplied by to become what :func:`gated` takes: (2 channels,)."""
    return torch.tensor([-2.0, 1.0]).repeat_interleave(channels)


def gated(gates: Tensor, dim: int = 1) -> Tensor:
    """tanh(a) sigmoid(b) of [-2 a | b], which lie one behind the other along ``dim``.

    One sigmoid of all, since tanh(a) = 1 - 2 sigmoid(-2 a): with AVX-512 PyTorch's sigmoid is ten times as fast as its
    tanh, but only in contiguous memory. The error is that of the dtype at 1, also where a is small.
    """
    a, b = torch.sigmoid(gates).chunk(2, dim)
    return torch.addcmul(b, a, b, value=-2)
