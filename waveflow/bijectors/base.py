"""The contract of an invertible map, and the ways to combine several."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Transform

from waveflow.bijectors.reversible import run_reversibly
from waveflow.context import Context, Ragged
from waveflow.errors import InputError

_validating = False


@contextmanager
def validation() -> Iterator[None]:
    """Within it every bijector checks that what it returns is finite, and names itself in the error otherwise."""
    global _validating
    before, _validating = _validating, True
    try:
        yield
    finally:
        _validating = before


def log_det_dtype(x: Tensor) -> torch.dtype:
    """The dtype of a log-det at ``x``: float32, or float64 where ``x`` is."""
    return torch.promote_types(x.dtype, torch.float32)


def sum_event(values: Tensor) -> Tensor:
    """Sum (B, ...) over all but the batch, in float32 or wider, to (B,)."""
    return values.flatten(1).sum(1, dtype=log_det_dtype(values))


def zero_log_det(x: Tensor) -> Tensor:
    """The log-det of a volume-preserving map at ``x``: zeros (B,)."""
    return torch.zeros(x.shape[0], dtype=log_det_dtype(x), device=x.device)


class Bijector(nn.Module):
    r"""An invertible map of the events of a batch.

    A subclass writes two methods, each of which gives the value and its own log-det:

    - ``forward(x, context)`` -> ``(z, log_det)``, from data to latent, with :math:`\log|\det \partial z/\partial x|`;
    - ``inverse(z, context)`` -> ``(x, log_det)``, from latent to data, with :math:`\log|\det \partial x/\partial z|`.

    Exactly one batch dimension; the floating dtype is kept; ``log_det`` is (B,), float32 or wider. The shape of an
    event may change, the number of its elements never does. Both methods are checked here, for all subclasses: what a
    subclass accepts it says by ``event_shape`` (``None`` entries are free) or by overriding :meth:`expects`.

    Attributes:
        event_shape: shape of the events that ``forward`` takes, ``None`` where any size will do; ``None`` for any
            shape.
        needs_context: whether a call without context is an error.
        constant_log_det: whether the log-det depends on neither the values of ``x`` nor those of the context.

    Raises:
        ValueError: (both methods) if the input is not floating, has no batch dimension, is of another shape than
            expected, lacks the context, or comes with a context of another batch size; if the map has no such
            direction.
        FloatingPointError: (both methods) within ``validation()``, if a result is not finite.
    """

    event_shape: tuple[int | None, ...] | None = None
    needs_context: bool = False
    constant_log_det: bool = False

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("forward", "inverse"):
            if name in cls.__dict__:
                setattr(cls, name, _checked(cls.__dict__[name], inverse=name == "inverse"))

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        raise InputError(f"{type(self).__name__} has no forward direction: it can only sample")

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        raise InputError(f"{type(self).__name__} has no inverse: it gives densities but no samples")

    def output_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Event shape of z for events of shape ``event``."""
        return event

    def as_transform(self, event_ndim: int, context: Context = None) -> Transform:
        """This map as a ``torch.distributions`` transform from latent to data, of events with ``event_ndim`` axes."""
        from waveflow.bijectors.interop import BijectorTransform

        return BijectorTransform(self, event_ndim, context)

    def expects(self, event: tuple[int, ...], inverse: bool) -> str | None:
        """In words, the event shapes that ``forward`` (``inverse``) takes if ``event`` is none of them, else None."""
        shape = self.event_shape
        if shape is None or (
            len(shape) == len(event) and all(a is None or a == b for a, b in zip(shape, event, strict=True))
        ):
            return None
        return "events of shape (" + ", ".join("any" if a is None else str(a) for a in shape) + ")"


def _checked(method: Callable, inverse: bool) -> Callable:
    @functools.wraps(method)
    def call(self: Bijector, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        name = type(self).__name__
        if not x.is_floating_point():
            raise ValueError(f"{name} expects a floating tensor, got {x.dtype}")
        if x.ndim < 2:
            raise ValueError(f"{name} expects a batch of events (B, ...), got shape {tuple(x.shape)}")
        expected = self.expects(tuple(x.shape[1:]), inverse)
        if expected is not None:
            raise ValueError(f"{name} expects {expected}, got {tuple(x.shape[1:])}")
        if context is None:
            if self.needs_context:
                raise ValueError(f"{name} expects a context, got None")
        else:
            size = (context.values if isinstance(context, Ragged) else context).shape[0]
            if size != x.shape[0]:
                raise ValueError(f"{name} expects a context of batch size {x.shape[0]}, got {size}")
        y, log_det = method(self, x, context)
        if _validating and not (y.isfinite().all() and log_det.isfinite().all()):
            raise FloatingPointError(f"{name}.{method.__name__} returned values or log-dets that are not finite")
        return y, log_det

    return call


class Identity(Bijector):
    """z = x."""

    constant_log_det = True

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return x, zero_log_det(x)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return z, zero_log_det(z)


class Inverse(Bijector):
    """The same map with its two directions exchanged: an IAF is the ``Inverse`` of an autoregressive map.

    Args:
        bijector: the map to turn round.
    """

    def __init__(self, bijector: Bijector):
        super().__init__()
        self.bijector = bijector
        self.constant_log_det = bijector.constant_log_det
        self.needs_context = bijector.needs_context

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self.bijector.inverse(x, context)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self.bijector(z, context)

    def expects(self, event: tuple[int, ...], inverse: bool) -> str | None:
        return self.bijector.expects(event, not inverse)

    def output_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        shape = self.bijector.output_shape(event)
        if shape != event:
            raise ValueError(f"the shape that Inverse({type(self.bijector).__name__}) gives is not known from {event}")
        return event


class Chain(Bijector):
    r"""Several maps, one after the other.

    .. math::
        z = f_n \circ \dots \circ f_1 (x), \qquad
        \log\left|\det \frac{\partial z}{\partial x}\right| = \sum_i \log|\det J_{f_i}|

    Args:
        bijectors: f_1, ..., f_n in the order from data to latent; every one is given the same, raw context.
        memory: ``"store"`` keeps activations for the backward pass as usual. ``"invert"`` keeps only the result
            and rebuilds each activation on the way back by running the layer's other direction, so that training memory
            does not grow with n (Gomez et al., 2017; arXiv:1707.04585); the gradients are the same to rounding.

    Raises:
        ValueError: for any other ``memory``.

    Example:
        >>> from waveflow.bijectors import Permutation, Squeeze
        >>> chain = Chain([Squeeze(2, dims=1), Permutation.reverse(2)])
        >>> z, log_det = chain(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
        >>> z.tolist(), chain.inverse(z)[0].tolist()
        ([[[2.0, 4.0], [1.0, 3.0]]], [[[1.0, 2.0, 3.0, 4.0]]])
    """

    def __init__(self, bijectors: Iterable[Bijector], memory: str = "store"):
        super().__init__()
        if memory not in ("store", "invert"):
            raise ValueError(f'Chain expects memory "store" or "invert", got {memory!r}')
        self.bijectors = nn.ModuleList(bijectors)
        self.memory = memory
        self.constant_log_det = all(b.constant_log_det for b in self.bijectors)
        self.needs_context = any(b.needs_context for b in self.bijectors)

    def __len__(self) -> int:
        return len(self.bijectors)

    def __getitem__(self, index: int) -> Bijector:
        return self.bijectors[index]

    def __iter__(self) -> Iterator[Bijector]:
        return iter(self.bijectors)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._run([(b, b.inverse) for b in self.bijectors], x, context)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._run([(b.inverse, b) for b in reversed(self.bijectors)], z, context)

    def _run(self, steps: list[tuple[Callable, Callable]], x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        if self.memory == "invert" and torch.is_grad_enabled():
            parameters = [p for p in self.parameters() if p.requires_grad]
            return run_reversibly(steps, x, context, parameters)
        log_det = zero_log_det(x)
        for apply, _ in steps:
            x, term = apply(x, context)
            log_det = log_det + term
        return x, log_det

    def output_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        for bijector in self.bijectors:
            event = bijector.output_shape(event)
        return event


class Conditioned(Bijector):
    """A bijector that is given an encoding of the context instead of the context itself.

    Args:
        encoder: maps the raw context to what ``bijector`` is conditioned on, e.g. an upsampler of mels.
        bijector: the map that is conditioned.
    """

    needs_context = True

    def __init__(self, encoder: nn.Module, bijector: Bijector):
        super().__init__()
        self.encoder = encoder
        self.bijector = bijector
        self.constant_log_det = bijector.constant_log_det

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self.bijector(x, self.encoder(context))

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self.bijector.inverse(z, self.encoder(context))

    def expects(self, event: tuple[int, ...], inverse: bool) -> str | None:
        return self.bijector.expects(event, inverse)

    def output_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return self.bijector.output_shape(event)
