"""Dequantisation: noise that spreads whole numbers over intervals, so that a density can be fitted to them."""

import torch
from torch import Tensor, nn

from waveflow.bijectors.base import zero_log_det


class UniformDequantisation(nn.Module):
    r"""u ~ U[0, 1) for every number (Theis, van den Oord & Bethge, 2016; arXiv:1511.01844).

    .. math::
        \log P(x) = \log \int p(x + u)\, du \ge E_{u \sim q}[\log p(x + u) - \log q(u \mid x)]

    Called with images (B, \*event), uint8 or floats that are whole numbers, the number of values a pixel can have, and
    a generator or None; gives ``(y, log_q)``: y = (x + u) / values in [0, 1), floating, and log q(u | x) in nats (B,),
    here 0. A log-density of y is one of x + u after ``D log(values)`` is subtracted.
    """

    exact = False

    def forward(self, images: Tensor, values: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        x = as_floats(images)
        u = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return to_unit_interval(x, u, values), zero_log_det(x)


def as_floats(images: Tensor) -> Tensor:
    """Images as they are, or in float32 if they are whole numbers by type."""
    return images if images.is_floating_point() else images.float()


def to_unit_interval(x: Tensor, u: Tensor, values: int) -> Tensor:
    """(x + u) / values, below 1 also where it is rounded."""
    return ((x + u) / values).clamp_max(1 - torch.finfo(x.dtype).eps / 2)
