"""Waveforms as whole numbers and back: evenly, as recordings are stored, or by the mu-law, as telephones did."""

import math
from typing import Protocol

import torch
from torch import Tensor

from waveflow.errors import InputError


class Quantiser(Protocol):
    """A division of [-1, 1] into cells 0 ... ``values`` - 1, from low to high."""

    values: int

    def encode(self, waveform: Tensor) -> Tensor:
        """The cells of samples, int64; what lies beyond [-1, 1] counts to the outermost."""

    def decode(self, codes: Tensor) -> Tensor:
        """A sample for each cell, float32, or of the dtype of ``codes`` if that is floating."""

    def log_width(self, codes: Tensor) -> Tensor:
        """log of the cells' widths: a probability of a cell minus this is a density on [-1, 1]."""


class EvenSteps:
    """Values at even distances, the first at -1 and the last at 1; the outermost cells are half as wide.

    Args:
        values: how many.

    Raises:
        InputError: for fewer than 2.

    Example:
        >>> steps = EvenSteps(5)
        >>> steps.decode(steps.encode(torch.tensor([-1.0, -0.3, 0.2, 0.8]))).tolist()
        [-1.0, -0.5, 0.0, 1.0]
    """

    def __init__(self, values: int = 65536):
        self.values = _at_least_two(values, "EvenSteps")

    def encode(self, waveform: Tensor) -> Tensor:
        # In float64, whose halves are those of the cells: float32 has just enough digits for 65,536 values.
        places = (waveform.double().clamp(-1, 1) + 1) * ((self.values - 1) / 2)
        return (places + 0.5).floor().long()

    def decode(self, codes: Tensor) -> Tensor:
        return _like(codes, codes.double() * (2 / (self.values - 1)) - 1)

    def log_width(self, codes: Tensor) -> Tensor:
        outermost = (codes <= 0) | (codes >= self.values - 1)
        return _like(codes, math.log(2 / (self.values - 1)) - math.log(2) * outermost.double())


class MuLaw:
    r"""Values at even distances of the companded waveform, finer where it is quiet (ITU-T G.711).

    .. math::
        y = \operatorname{sign}(x) \frac{\log(1 + \mu |x|)}{\log(1 + \mu)}, \qquad \mu = \text{values} - 1

    As in WaveNet (arXiv:1609.03499, section 2.2). Cells are even in y, the outermost half as wide; a cell's sample is
    where the middle of its y is expanded, or for the outermost -1 and 1.

    Args:
        values: how many.

    Raises:
        InputError: for fewer than 2.

    Example:
        >>> MuLaw(256).encode(torch.tensor([-1.0, 0.0, 0.01, 1.0])).tolist()
        [0, 128, 157, 255]
    """

    def __init__(self, values: int = 256):
        self.values = _at_least_two(values, "MuLaw")
        self._even = EvenSteps(values)

    def encode(self, waveform: Tensor) -> Tensor:
        x, mu = waveform.double().clamp(-1, 1), self.values - 1
        return self._even.encode(x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu))

    def decode(self, codes: Tensor) -> Tensor:
        return _like(codes, self._expand(codes.double() * (2 / (self.values - 1)) - 1))

    def log_width(self, codes: Tensor) -> Tensor:
        middles, half = codes.double() * (2 / (self.values - 1)) - 1, 1 / (self.values - 1)
        edges = ((middles + half).clamp_max(1), (middles - half).clamp_min(-1))
        return _like(codes, (self._expand(edges[0]) - self._expand(edges[1])).log())

    def _expand(self, y: Tensor) -> Tensor:
        mu = self.values - 1
        return y.sign() * torch.expm1(y.abs() * math.log1p(mu)) / mu


def _like(codes: Tensor, values: Tensor) -> Tensor:
    return values.to(codes.dtype if codes.is_floating_point() else torch.float32)


def _at_least_two(values: int, name: str) -> int:
    if values < 2:
        raise InputError(f"{name} expects at least 2 values, got {values}")
    return values
