"""Sylvester flow: several planar steps at once, in a subspace."""

import torch
from torch import Tensor, nn

from waveflow.bijectors.base import Bijector, log_det_dtype, sum_event
from waveflow.bijectors.planar import above_minus_one
from waveflow.bijectors.roots import increasing_root, with_implicit_gradients
from waveflow.bijectors.univariate import LOG_SCALES
from waveflow.context import Context


class Sylvester(Bijector):
    r"""Planar flow with M hidden units (van den Berg et al., 2018; arXiv:1803.05649).

    .. math::
        z = x + Q R \tanh(\tilde R Q^T x + b), \qquad
        \log|\det| = \sum_{i=1}^{M} \log\big(1 + \tilde R_{ii} R_{ii} (1 - \tanh_i^2)\big)

    by Sylvester's determinant identity; Q (D, M) has orthonormal columns, R and :math:`\tilde R` are upper
    triangular, :math:`\tilde R_{ii} > 0` and :math:`\tilde R_{ii} R_{ii} > -0.99`. Within the subspace the last
    coordinate depends on itself alone, the one before on itself and the last, and so on: the inverse is exact, M roots
    of increasing functions of one number, one after the other. With R = 0 as at the start the map is the identity.

    Args:
        features: D.
        hidden: M, at most D.
        generator: of the random subspace that it starts with.

    Shape:
        ``(B, D)`` to ``(B, D)``.

    Raises:
        ValueError: if M is not in 1 ... D.
    """

    def __init__(self, features: int, hidden: int, generator: torch.Generator | None = None):
        super().__init__()
        if not 1 <= hidden <= features:
            raise ValueError(f"Sylvester expects 1 to {features} hidden units for {features} features, got {hidden}")
        self.event_shape = (features,)
        self.basis = nn.Parameter(torch.randn(features, hidden, generator=generator))
        self.outer = nn.Parameter(torch.zeros(hidden, hidden))
        self.inner = nn.Parameter(torch.zeros(hidden, hidden))
        self.b = nn.Parameter(torch.zeros(hidden))

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        q, outer, inner, b, product = self._constrained(log_det_dtype(x))
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(q.dtype)
            tanh = (wide @ q @ inner.T + b).tanh()
            return (wide + tanh @ outer.T @ q.T).to(x.dtype), _log_det(product, tanh)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        q, outer, inner, b, product = self._constrained(log_det_dtype(z))
        with torch.autocast(z.device.type, enabled=False):
            wide = z.to(q.dtype)
            tanh = (self._coordinates(wide @ q, outer, inner, b, product) @ inner.T + b).tanh()
            return (wide - tanh @ outer.T @ q.T).to(z.dtype), -_log_det(product, tanh)

    def _coordinates(self, target: Tensor, outer: Tensor, inner: Tensor, b: Tensor, product: Tensor) -> Tensor:
        """y (B, M) with y + R tanh(R~ y + b) = target."""
        with torch.no_grad():
            root = _back_substitute(target, outer, inner, b, product)
        if not torch.is_grad_enabled():
            return root
        slope = 1 - (root @ inner.T + b).tanh().square()
        jacobian = (torch.eye(len(b), dtype=b.dtype, device=b.device) + (outer * slope.unsqueeze(1)) @ inner).detach()

        def newton_step(y: Tensor) -> Tensor:
            value = y + (y @ inner.T + b).tanh() @ outer.T - target
            return torch.linalg.solve_triangular(jacobian, value.unsqueeze(2), upper=True).squeeze(2)

        return with_implicit_gradients(newton_step, root)

    def _constrained(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Q, R, R~, b, and the products of the diagonals of R and R~."""
        q, triangle = torch.linalg.qr(self.basis.to(dtype))
        # With a positive diagonal the factor is unique, hence smooth in the parameter.
        q = q * torch.where(triangle.diagonal() < 0, -1.0, 1.0).to(dtype)
        outer, inner = self.outer.to(dtype), self.inner.to(dtype)
        product, scale = above_minus_one(outer.diagonal()), LOG_SCALES["tanh_exp"](inner.diagonal()).exp()
        outer = outer.triu(1) + torch.diag_embed(product / scale)
        return q, outer, inner.triu(1) + torch.diag_embed(scale), self.b.to(dtype), product


def _back_substitute(target: Tensor, outer: Tensor, inner: Tensor, b: Tensor, product: Tensor) -> Tensor:
    found: list[Tensor] = []  # y_i and h_i for i = M-1, M-2, ...
    bent: list[Tensor] = []
    for i in reversed(range(len(b))):
        later = range(len(b) - 1, i, -1)
        offset = b[i] + sum(inner[i, j] * y for j, y in zip(later, found, strict=True))
        goal = target[:, i] - sum(outer[i, j] * h for j, h in zip(later, bent, strict=True))

        def beyond(t: Tensor, i=i, offset=offset, goal=goal) -> tuple[Tensor, Tensor]:
            tanh = (inner[i, i] * t + offset).tanh()
            return t + outer[i, i] * tanh - goal, 1 + product[i] * (1 - tanh * tanh)

        reach = outer[i, i].abs()
        found.append(increasing_root(beyond, goal - reach, goal + reach))
        bent.append((inner[i, i] * found[-1] + offset).tanh())
    return torch.stack(found[::-1], 1)


def _log_det(product: Tensor, tanh: Tensor) -> Tensor:
    return sum_event(torch.log1p(product * (1 - tanh * tanh)))
