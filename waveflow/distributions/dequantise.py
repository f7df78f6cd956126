"""Dequantisation: noise that spreads whole numbers over intervals, so that a density can be fitted to them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.bijectors import Affine, Chain, Checkerboard, Coupling
from waveflow.bijectors.base import sum_event, zero_log_det
from waveflow.distributions.bases import StandardLogistic
from waveflow.distributions.flow import Flow
from waveflow.errors import InputError
from waveflow.networks import ResNet


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


class VariationalDequantisation(nn.Module):
    r"""u drawn by a flow that sees the image, so that the density need not be flat within a pixel's interval.

    .. math::
        \epsilon \sim \mathrm{Logistic}, \quad u = \sigma(f^{-1}(\epsilon; x)), \quad
        \log q(u \mid x) = \log p(\epsilon) + \log\left|\det \frac{\partial f}{\partial v}\right| - \log \sigma'(v)

    with v = logit u (Flow++: Ho et al., 2019; arXiv:1902.00275, section 3.1). f is a chain of affine couplings over
    checkerboards, their networks given the image scaled to [-1, 1]. It starts as the identity, so q starts uniform. It
    is trained with the density: gradients flow through y and log q. Called as :class:`UniformDequantisation` is.

    Args:
        image_shape: (C, H, W), W even.
        hidden: width of the networks.
        layers: couplings.
        blocks: residual blocks of each network.
        memory: ``"store"`` or ``"invert"``, see :class:`~waveflow.bijectors.Chain`.

    Raises:
        InputError: for an odd width.
    """

    exact = False

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        hidden: int = 32,
        layers: int = 4,
        blocks: int = 1,
        memory: str = "store",
    ):
        super().__init__()
        channels, _, width = image_shape
        if width % 2:
            raise InputError(f"VariationalDequantisation expects images of even width, got {tuple(image_shape)}")
        couplings = []
        for i in range(layers):
            network = ResNet(channels, 2 * channels, hidden, blocks, context=channels)
            couplings.append(Coupling(Checkerboard(swap=i % 2 == 1), network, Affine("gentle")))
        self.noise = Flow(StandardLogistic(), Chain(couplings, memory), image_shape)

    def forward(self, images: Tensor, values: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        x = as_floats(images)
        v, log_q = self.noise.sample_with_log_prob((), x / ((values - 1) / 2) - 1, generator=generator)
        return to_unit_interval(x, torch.sigmoid(v), values), log_q + sum_event(F.softplus(v) + F.softplus(-v))


def as_floats(images: Tensor) -> Tensor:
    """Images as they are, or in float32 if they are whole numbers by type."""
    return images if images.is_floating_point() else images.float()


def to_unit_interval(x: Tensor, u: Tensor, values: int) -> Tensor:
    """(x + u) / values, below 1 also where it is rounded."""
    return ((x + u) / values).clamp_max(1 - torch.finfo(x.dtype).eps / 2)
