"""Discrete autoregressive models: each number has a distribution that follows from the numbers before it."""

import math

import torch
from torch import Tensor, nn

from waveflow.bijectors.base import sum_event
from waveflow.bijectors.solvers import Solution, Solver, find_solver, order_of
from waveflow.bijectors.univariate import Univariate
from waveflow.context import Context, Ragged, repeat_context
from waveflow.distributions.flow import EventShape
from waveflow.distributions.heads import Head
from waveflow.errors import InputError


class AutoregressiveDistribution(nn.Module):
    r"""The exact likelihood of tensors of whole numbers, one network's answer for each number.

    .. math::
        \log P(x \mid c) = \sum_i \log P(x_i \mid x_{<i}, c), \qquad P(x_i \mid x_{<i}, c) = h(x_i; \theta_i(x_{<i}, c))

    It is to a head what ``Autoregressive`` is to a univariate map, for pixels (PixelCNN) and samples of sound (WaveNet)
    alike: the likelihood takes one pass of the conditioner; drawing is a map from uniform noise u, x_i =
    F^-1(u_i | x_<i), which the solvers of :mod:`waveflow.bijectors.solvers` evaluate place by place or, with exact
    results since x is discrete, all places at once. Equal noise gives equal x by every solver.

    Args:
        conditioner: as of :class:`~waveflow.bijectors.Autoregressive`, giving (B, P, \*event), P = ``head.params``.
            It sees x scaled to [-1, 1].
        head: distribution of one number.
        event_shape: shape of an event, or a function that tells it from the context. It may hold ``None`` for axes of
            any length where nothing is drawn.
        solver: ``"sequential"``, ``"jacobi"``, ``"auto"``, or a solver with settings. May be set anew at any time.

    ``forward`` is :meth:`log_prob`.

    Raises:
        InputError: for an unknown solver.

    Example:
        >>> from waveflow.distributions import Categorical
        >>> from waveflow.networks import MADE
        >>> model = AutoregressiveDistribution(MADE(3, hidden=(8,), outputs=4), Categorical(4), (3,))
        >>> model.log_prob(torch.tensor([[0, 3, 1]])).exp().item()
        0.015625
        >>> model.sample((5,)).shape
        torch.Size([5, 3])
    """

    exact = True

    def __init__(self, conditioner: nn.Module, head: Head, event_shape: EventShape, solver: str | Solver = "auto"):
        super().__init__()
        self.conditioner = conditioner
        self.head = head
        self.solver = solver
        self._event_shape = event_shape

    @property
    def solver(self) -> Solver:
        """What draws."""
        return self._solver

    @solver.setter
    def solver(self, solver: str | Solver) -> None:
        self._solver = find_solver(solver, "AutoregressiveDistribution")

    def event_shape(self, context: Context = None) -> tuple[int, ...]:
        """Shape of one event under this context."""
        return self._event_shape(context) if callable(self._event_shape) else self._event_shape

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        return self.log_prob(x, context)

    def log_prob(self, x: Tensor, context: Context = None) -> Tensor:
        r"""Log-probability in nats.

        Args:
            x: (\*batch, \*event), whole numbers 0 ... ``head.values`` - 1 of any dtype; others are not looked for.
            context: None, or a batch of B of them; ``batch`` then is (B,) or (\*more, B).

        Returns:
            (\*batch,), float32 or wider.

        Raises:
            ValueError: if x is not a batch of events, or the conditioner finds fault with it or the context.
        """
        if isinstance(context, Ragged):
            raise InputError("AutoregressiveDistribution gives no likelihood of padded batches: take each by itself")
        event = self.event_shape(context)
        batch, got = tuple(x.shape[: x.ndim - len(event)]), tuple(x.shape[x.ndim - len(event) :])
        if x.ndim <= len(event) or any(n is not None and n != m for n, m in zip(event, got, strict=True)):
            raise InputError(f"AutoregressiveDistribution expects batches of {event}, got {tuple(x.shape)}")
        flat = x.reshape(math.prod(batch), *got)
        params = _Scaled(self.conditioner, self.head)(flat, repeat_context(context, math.prod(batch[:-1])))
        return sum_event(self.head.log_prob(flat, params)).reshape(batch)

    @torch.no_grad()
    def sample(
        self,
        shape: tuple[int, ...] = (),
        context: Context = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        solver: str | Solver | None = None,
        given: Tensor | None = None,
        known: int = 0,
    ) -> Tensor:
        r"""Draw events.

        Args:
            shape: how many.
            context: None, or a batch of B of them.
            temperature: see :class:`~waveflow.distributions.heads.Head`; at 0 nothing is random.
            generator: of the noise.
            solver: instead of the distribution's own.
            given: events to go on from, of the shape of what is returned.
            known: how many of their numbers, the first in the order, are kept.

        Returns:
            int64 (\*shape, B, \*event) under a context, otherwise (\*shape, \*event).

        Raises:
            InputError: for a negative temperature, an event whose shape is not known, or numbers to go on from that do
                not fit.
            FloatingPointError: if the network gives numbers that are not finite.
        """
        if not 0 <= temperature < math.inf:
            raise InputError(f"AutoregressiveDistribution expects a temperature of at least 0, got {temperature}")
        event = self.event_shape(context)
        if None in event:
            raise InputError(f"AutoregressiveDistribution needs the whole shape of an event to sample, got {event}")
        values = context.values if isinstance(context, Ragged) else context
        batch = tuple(shape) if context is None else (*shape, len(values))
        like = _like(self.conditioner)
        u = torch.rand((math.prod(batch), *event), generator=generator, dtype=_wide(like), device=like.device)
        # Never 0, which would give values of no probability; one u for all where nothing is to be random.
        u = u.clamp_min(torch.finfo(u.dtype).eps / 4) if temperature > 0 else torch.full_like(u, 0.5)
        if given is not None and tuple(given.shape) == (*batch, *event):
            given = given.reshape(u.shape)
        solution = self.solve(u, repeat_context(context, math.prod(shape)), temperature, solver, given, known)
        if not solution.log_det.isfinite().all():
            raise FloatingPointError("the network of an AutoregressiveDistribution gave numbers that are not finite")
        return solution.x.long().reshape(*batch, *event)

    @torch.no_grad()
    def solve(
        self,
        u: Tensor,
        context: Context = None,
        temperature: float = 1.0,
        solver: str | Solver | None = None,
        given: Tensor | None = None,
        known: int = 0,
    ) -> Solution:
        r"""The event that belongs to uniform noise, with the solver's report.

        Args:
            u: (B, \*event), floats between 0 and 1.
            context: None, or a batch of B.
            temperature: as of :meth:`sample`.
            solver: instead of the distribution's own.
            given: None, or (B, \*event), whose first ``known`` numbers are kept.
            known: how many.

        Returns:
            ``x``, whole numbers as floats of u's dtype; ``log_det``, here its log-probability at that temperature.

        Raises:
            InputError: if ``given`` and ``known`` do not fit.
        """
        if known:
            u = self._tell(u, given, known)
        chosen = self.solver if solver is None else find_solver(solver, "AutoregressiveDistribution")
        return chosen(*self.as_map(temperature), u, context)

    def as_map(self, temperature: float = 1.0) -> tuple[nn.Module, Univariate]:
        """The conditioner of whole numbers, and the map from noise to them: what solvers are given."""
        return _Scaled(self.conditioner, self.head), _Draw(self.head, temperature)

    def _tell(self, u: Tensor, given: Tensor | None, known: int) -> Tensor:
        size = u.shape[1:].numel()
        if given is None or given.shape != u.shape or not 0 <= known <= size:
            got = "no events" if given is None else f"events of {tuple(given.shape)}"
            raise InputError(
                f"AutoregressiveDistribution expects to go on from {tuple(u.shape)} with 0 ... {size} numbers known, "
                f"got {got} and {known} known"
            )
        least, largest = (given.min().item(), given.max().item()) if given.numel() else (0, 0)
        if not 0 <= least <= largest < self.head.values:
            raise InputError(
                f"AutoregressiveDistribution expects numbers 0 ... {self.head.values - 1} to go on from, "
                f"got {least} ... {largest}"
            )
        places = order_of(self.conditioner, u).flatten()[:known]
        return u.flatten(1).index_copy(1, places, -1 - given.to(u.dtype).flatten(1)[:, places]).reshape(u.shape)


class _Scaled(nn.Module):
    """The conditioner of whole numbers, which itself sees them on [-1, 1]."""

    def __init__(self, conditioner: nn.Module, head: Head):
        super().__init__()
        self.conditioner, self.head = conditioner, head
        self.dtype = _like(conditioner).dtype
        if hasattr(conditioner, "positions"):
            self.positions = conditioner.positions
        if hasattr(conditioner, "stepper"):
            self.stepper = self._stepper

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        params = self.conditioner(self.scale(x), context)
        expected = (x.shape[0], self.head.params, *x.shape[1:])
        if params.shape != expected:
            raise ValueError(
                f"AutoregressiveDistribution expects a conditioner that gives {expected}, got {tuple(params.shape)}"
            )
        return params

    def scale(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(self.dtype, torch.float32))
        return (wide * (2 / (self.head.values - 1)) - 1).to(self.dtype)

    def _stepper(self, batch: int, context: Context = None) -> "_ScaledStepper":
        return _ScaledStepper(self.conditioner.stepper(batch, context), self.scale)


class _ScaledStepper:
    def __init__(self, stepper, scale):
        self._stepper, self._scale = stepper, scale

    def params(self) -> Tensor:
        return self._stepper.params()

    def push(self, value: Tensor) -> None:
        self._stepper.push(self._scale(value))


class _Draw(Univariate):
    """What solvers invert: noise is turned into values; numbers below 0, -1 - x, tell that the value is to be x."""

    def __init__(self, head: Head, temperature: float):
        super().__init__()
        self.head, self.temperature = head, temperature
        self.params = head.params

    def inverse(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.where(z < 0, -1 - z, self.head.quantile(z, params, self.temperature))
        return x, self.head.log_prob(x, params, self.temperature)


def _like(conditioner: nn.Module) -> Tensor:
    return next((p for p in conditioner.parameters() if p.is_floating_point()), torch.empty(0))


def _wide(like: Tensor) -> torch.dtype:
    return torch.promote_types(like.dtype, torch.float32)
