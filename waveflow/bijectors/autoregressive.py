"""Autoregressive maps: each number is transformed by parameters that follow from those before it."""

import torch
from torch import Tensor, nn

from waveflow.bijectors.base import Bijector, sum_event, zero_log_det
from waveflow.bijectors.implicit import is_transformed, solve_differentiably
from waveflow.bijectors.solvers import Solution, Solver, find_solver, order_of
from waveflow.bijectors.univariate import Univariate
from waveflow.context import Context, Ragged


class Autoregressive(Bijector):
    r"""Transform every number of x by a univariate map whose parameters are a function of the numbers before it.

    .. math::
        z_i = u(x_i; \theta_i(x_{<i})), \qquad \log|\det| = \sum_i \log|u'| \\
        x_i = u^{-1}(z_i; \theta_i(x_{<i})), \qquad \log|\det| = -\sum_i \log|u'|

    Forward, data to latent, takes one pass of the conditioner (MAF: Papamakarios et al., 2017; arXiv:1705.07057). The
    inverse is found by a solver, see ``waveflow.bijectors.solvers``; its gradients, also those of the second order,
    are exact whatever the solver: the first come from the implicit function theorem at the cost of a few passes.
    ``Inverse(Autoregressive(...))`` is an inverse autoregressive flow (IAF: Kingma et al., 2016; arXiv:1606.04934).

    Args:
        conditioner: network called as ``conditioner(x, context)`` that gives params (B, P, \*event), P =
            ``univariate.params``, those of a number depending on numbers before it only. It may have

            - ``stepper(B, context)``, the same function place by place: ``.params()`` gives (B, P) of the next place,
              ``.push(x_i)`` tells it the number there, (B,). Without it there are only Jacobi solvers;
            - ``positions(event)``, the flat positions of an event from first to last, (D,); without it as they lie in
              memory. Where it gives (steps, k), a step gives k numbers and the shapes become (B, P, k) and (B, k);
            - ``event_shape`` and ``context`` (its size, 0 for none), which are then checked.
        univariate: the map of single numbers.
        solver: ``"sequential"``, ``"jacobi"``, ``"auto"``, or a solver with settings of its own, such as
            ``Jacobi(tolerance=1e-4)``. May be set anew at any time.

    Shape:
        ``(B, *event)`` to ``(B, *event)``.

    Raises:
        ValueError: for an unknown solver; (both directions) if the conditioner's answer does not fit the events, or
            it finds fault with them or the context.

    Example:
        >>> from waveflow.bijectors import Standardise
        >>> from waveflow.networks import MADE
        >>> maf = Autoregressive(MADE(3, hidden=(16,), outputs=2), Standardise())
        >>> z, log_det = maf(torch.tensor([[1.0, 2.0, 3.0]]))
        >>> maf.inverse(z)[0].tolist()
        [[1.0, 2.0, 3.0]]
    """

    def __init__(self, conditioner: nn.Module, univariate: Univariate, solver: str | Solver = "auto"):
        super().__init__()
        self.conditioner = conditioner
        self.univariate = univariate
        self.solver = solver
        self.event_shape = getattr(conditioner, "event_shape", None)
        self.needs_context = bool(getattr(conditioner, "context", 0))
        self.constant_log_det = univariate.constant_log_det

    @property
    def solver(self) -> Solver:
        """What finds the inverse."""
        return self._solver

    @solver.setter
    def solver(self, solver: str | Solver) -> None:
        self._solver = find_solver(solver, "Autoregressive")

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        z, log_derivative = self.univariate(x, self._params(x, context))
        return z, sum_event(log_derivative)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        if torch.compiler.is_compiling() or is_transformed(z):
            return self.inverse_by_passes(z, context)
        values = context.values if isinstance(context, Ragged) else context
        if torch.is_grad_enabled() and any(t.requires_grad for t in (z, values, *self.parameters()) if t is not None):
            return solve_differentiably(self, z, context)
        return self.solve(z, context)[:2]

    @torch.no_grad()
    def solve(self, z: Tensor, context: Context = None) -> Solution:
        """The inverse without gradients, with the solver's report: the rounds it took and what they still changed."""
        return self.solver(self.conditioner, self.univariate, z, context)

    def inverse_by_passes(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """The inverse by a whole pass for every place, whatever the solver.

        It is differentiable any number of times, and nothing is written in place or depends on values, so that
        ``torch.compile`` and the transformations of ``torch.func`` apply: within them ``inverse`` takes this way.
        """
        flat = z.flatten(1)
        x, log_det = torch.zeros_like(flat), zero_log_det(z)
        for places in order_of(self.conditioner, z).unbind():
            places = places.reshape(-1)
            params = self._params(x.reshape(z.shape), context).flatten(2)
            value, log_derivative = self.univariate.inverse(flat[:, places], params[..., places])
            x = x.index_copy(1, places, value)
            log_det = log_det + sum_event(log_derivative)
        return x.reshape(z.shape), log_det

    def _params(self, x: Tensor, context: Context) -> Tensor:
        params = self.conditioner(x, context)
        expected = (x.shape[0], self.univariate.params, *x.shape[1:])
        if params.shape != expected:
            raise ValueError(f"Autoregressive expects a conditioner that gives {expected}, got {tuple(params.shape)}")
        return params
