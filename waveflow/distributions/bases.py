"""Base distributions: what a flow maps data to."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.bijectors.base import log_det_dtype, sum_event


class Base(nn.Module):
    """Independent, identically distributed numbers of mean 0 in a tensor of any shape.

    ``temperature`` multiplies their standard deviation. 0 is allowed when drawing: all draws are then 0.
    """

    def log_prob(self, z: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-density of z (B, ...) in nats, (B,), float32 or wider.

        Raises:
            ValueError: if the temperature is not positive.
        """
        if not temperature > 0:
            raise ValueError(f"{type(self).__name__}.log_prob expects a positive temperature, got {temperature}")
        wide = z.to(log_det_dtype(z)) / temperature
        return sum_event(self._log_density(wide)) - z.shape[1:].numel() * math.log(temperature)

    def sample(
        self,
        shape: tuple[int, ...],
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """A draw of ``shape``.

        Raises:
            ValueError: if the temperature is negative.
        """
        if not temperature >= 0:
            raise ValueError(f"{type(self).__name__}.sample expects a temperature >= 0, got {temperature}")
        return temperature * self._draw(shape, generator, dtype, device)

    def _log_density(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _draw(self, shape, generator, dtype, device) -> Tensor:
        raise NotImplementedError


class StandardNormal(Base):
    """Mean 0, standard deviation 1."""

    def _log_density(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square() + math.log(2 * math.pi))

    def _draw(self, shape, generator, dtype, device) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)


class StandardLogistic(Base):
    """Mean 0, scale 1 (standard deviation pi / sqrt 3): log density -z - 2 log(1 + exp(-z)) (NICE: arXiv:1410.8516)."""

    def _log_density(self, z: Tensor) -> Tensor:
        return -(F.softplus(z) + F.softplus(-z))

    def _draw(self, shape, generator, dtype, device) -> Tensor:
        u = torch.rand(shape, generator=generator, dtype=dtype, device=device)
        return torch.logit(u, eps=torch.finfo(u.dtype).eps / 4)
