"""Bits per dimension: the unit in which likelihoods of images are compared."""

import math
from typing import TypeVar

from torch import Tensor

_Number = TypeVar("_Number", float, Tensor)


def bits_per_dim(nats: _Number, dims: int) -> _Number:
    """Bits that a code made from the model spends on each of the numbers of an event.

    Args:
        nats: log-probability of an event, or of many (B,).
        dims: numbers in one event: channels * height * width.

    Example:
        >>> bits_per_dim(2 * math.log(1 / 256), dims=2)
        8.0
    """
    return -nats / (dims * math.log(2))
