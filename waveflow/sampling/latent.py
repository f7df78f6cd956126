"""A target seen from the latent space of a flow."""

from collections.abc import Callable

import torch
from torch import Tensor

from waveflow.bijectors import Bijector
from waveflow.context import Context
from waveflow.distributions import Flow
from waveflow.sampling.density import LogDensity, evaluate


class LatentTarget:
    r"""The log-density of z = f(x) when x has the target's, itself a target for any sampler.

    .. math::
        \log p_Z(z) = \log p(f^{-1}(z)) + \log\left|\det \frac{\partial f^{-1}}{\partial z}\right|

    A flow trained on the target makes :math:`p_Z` nearly standard normal, so that small local steps in z go far in x
    (Hoffman et al., 2019; arXiv:1903.03704: neural transport). Differentiable by z: MALA works on it.

    Args:
        log_target: log p of x (N, *event), up to a constant.
        flow: a flow or its bijector f, from x to z.
        context: of one item (1, ...), if the flow has one; the same for all points.

    Example:
        >>> from waveflow.bijectors import Affine, Elementwise
        >>> scaled = Elementwise(Affine("exp"), (1,))  # z = e x
        >>> _ = scaled.raw.data.copy_(torch.tensor([[0.0], [1.0]]))
        >>> target = LatentTarget(lambda x: torch.zeros(len(x)), scaled)
        >>> round(target(torch.zeros(1, 1)).item(), 4)
        -1.0
    """

    def __init__(self, log_target: LogDensity, flow: Flow | Bijector, context: Context = None):
        self.log_target = log_target
        self.bijector = flow.bijector if isinstance(flow, Flow) else flow
        self.context = context

    def __call__(self, z: Tensor) -> Tensor:
        x, log_det = self.bijector.inverse(z, self._context(len(z)))
        return evaluate(self.log_target, x) + log_det

    @torch.no_grad()
    def to_data(self, z: Tensor, batch_ndim: int = 1) -> Tensor:
        """f^-1: latents to points, (*batch, *event); the ``samples`` of chains have ``batch_ndim`` 2."""
        return self._map(self.bijector.inverse, z, batch_ndim)

    @torch.no_grad()
    def to_latent(self, x: Tensor, batch_ndim: int = 1) -> Tensor:
        """f: points to latents, (*batch, *event), e.g. where chains start."""
        return self._map(self.bijector, x, batch_ndim)

    def _map(self, function: Callable, values: Tensor, batch_ndim: int) -> Tensor:
        flat = values.flatten(0, batch_ndim - 1)
        mapped, _ = function(flat, self._context(len(flat)))
        return mapped.unflatten(0, values.shape[:batch_ndim])

    def _context(self, count: int) -> Context:
        return None if self.context is None else self.context.expand(count, *self.context.shape[1:])
