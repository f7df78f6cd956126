"""A flow: a base distribution seen through a bijector."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from math import prod

import torch
from torch import Tensor, nn

from waveflow.bijectors.base import Bijector, validation
from waveflow.context import Context, Ragged, repeat_context
from waveflow.distributions.bases import Base
from waveflow.distributions.torch_distribution import FlowDistribution

EventShape = tuple[int, ...] | Callable[[Context], tuple[int, ...]]


class Flow(nn.Module):
    r"""An exact-likelihood model of tensors.

    .. math::
        \log p(x \mid c) = \log \pi(f(x; c)) + \log\left|\det \frac{\partial f}{\partial x}\right|

    Args:
        base: pi, the distribution of the latent.
        bijector: f, from data to latent.
        event_shape: shape of one event, or a function that tells it from the context (a waveform's from its mel). A
            tuple may hold ``None`` for axes of any length; such a flow gives densities but needs the function to
            sample.

    ``forward`` is :meth:`log_prob`, so that a flow can be wrapped by DDP and Fabric.
    """

    def __init__(self, base: Base, bijector: Bijector, event_shape: EventShape):
        super().__init__()
        self.base = base
        self.bijector = bijector
        self._event_shape = event_shape

    def event_shape(self, context: Context = None) -> tuple[int, ...]:
        """Shape of one event under this context."""
        return self._event_shape(context) if callable(self._event_shape) else self._event_shape

    def latent_shape(self, context: Context = None) -> tuple[int, ...]:
        """Shape of one event's latent under this context."""
        return self.bijector.output_shape(self.event_shape(context))

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        return self.log_prob(x, context)

    def log_prob(self, x: Tensor, context: Context = None) -> Tensor:
        """Log-density in nats.

        Args:
            x: (*batch, *event).
            context: None, or a batch of B of them; ``batch`` then is (B,) or (*more, B).

        Returns:
            (*batch,), float32 or wider.

        Raises:
            ValueError: if x is not a batch of events, or batch and context do not agree.
        """
        batch, x, context = self._flatten(x, context)
        z, log_det = self.bijector(x, context)
        return (self.base.log_prob(z) + log_det).reshape(batch)

    def sample(
        self,
        shape: tuple[int, ...] = (),
        context: Context = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        check: float | None = None,
    ) -> Tensor:
        """Draw events: (*shape, B, *event) given a context of batch size B, otherwise (*shape, *event).

        Gradients flow to the parameters unless switched off by the caller. ``check`` re-encodes what was made and
        allows the latents to be off by that much.

        Raises:
            ValueError: for a negative temperature, or a flow that does not know the shape of its events.
            FloatingPointError: if a sample is not finite, or its latent is off by more than ``check``.
        """
        batch, z, context = self._draw(shape, context, temperature, generator)
        x, _ = self.bijector.inverse(z, context)
        if check is not None:
            with torch.no_grad():
                error = (self.bijector(x, context)[0] - z).abs().max().item() if z.numel() else 0.0
            if not error <= check:
                raise FloatingPointError(
                    f"the flow's samples encode to latents that are off by {error:.3g} > {check:.3g}"
                )
        if not x.isfinite().all():
            raise FloatingPointError(
                "the flow's inverse gave values that are not finite; flow.validate() names the layer"
            )
        return x.reshape(*batch, *x.shape[1:])

    def sample_with_log_prob(
        self,
        shape: tuple[int, ...] = (),
        context: Context = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw events together with their log-density under the same temperature, in one pass, differentiably.

        Returns:
            x as from :meth:`sample`, and (*shape, B) or (*shape,).

        Raises:
            ValueError: if the temperature is not positive.
        """
        if isinstance(context, Ragged):
            raise ValueError("Flow gives no densities of padded batches: take each item by itself")
        batch, z, context = self._draw(shape, context, temperature, generator)
        x, log_det = self.bijector.inverse(z, context)
        log_prob = self.base.log_prob(z, temperature) - log_det
        return x.reshape(*batch, *x.shape[1:]), log_prob.reshape(batch)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> None:
        """Run the data-dependent initialisation of layers that have one (ActNorm) on x, if it has not happened yet."""
        training = self.training
        self.train()
        try:
            self.log_prob(x, context)
        finally:
            self.train(training)

    @torch.no_grad()
    def inverse_error(self, x: Tensor, context: Context = None) -> Tensor:
        """max |x - f^-1(f(x))| of each event, (*batch,): what the inverse is worth in this precision, on these data."""
        batch, x, context = self._flatten(x, context)
        rebuilt, _ = self.bijector.inverse(self.bijector(x, context)[0], context)
        return (rebuilt - x).abs().flatten(1).amax(1).reshape(batch)

    def as_distribution(self, context: Context = None) -> FlowDistribution:
        """The flow under this context as a ``torch.distributions.Distribution``."""
        return FlowDistribution(self, context)

    def validate(self) -> AbstractContextManager[None]:
        """Within it, every layer checks what it returns and the first that is not finite is named."""
        return validation()

    def _flatten(self, x: Tensor, context: Context) -> tuple[tuple[int, ...], Tensor, Context]:
        if isinstance(context, Ragged):
            raise ValueError("Flow gives no densities of padded batches: take each item by itself")
        event = self.event_shape(context)
        event_ndim = len(event)
        if x.ndim <= event_ndim:
            raise ValueError(f"Flow expects a batch of events with {event_ndim} axes, got shape {tuple(x.shape)}")
        got = tuple(x.shape[x.ndim - event_ndim :])
        # Under a context that tells the length, shorter events are the bijector's to judge.
        if not callable(self._event_shape) and any(n is not None and n != m for n, m in zip(event, got, strict=True)):
            raise ValueError(f"Flow expects events of shape {event}, got {got}")
        batch = tuple(x.shape[: x.ndim - event_ndim])
        if context is not None and len(batch) > 1:
            context = repeat_context(context, prod(batch[:-1]))
        return batch, x.reshape(prod(batch), *x.shape[x.ndim - event_ndim :]), context

    def _draw(self, shape, context, temperature, generator) -> tuple[tuple[int, ...], Tensor, Context]:
        if None in self.event_shape(context):
            raise ValueError(
                f"Flow needs to know the whole shape of an event to sample, got {self.event_shape(context)}"
            )
        event = self.latent_shape(context)
        shape = tuple(shape)
        if context is None:
            batch = shape
        else:
            values = context.values if isinstance(context, Ragged) else context
            batch = (*shape, values.shape[0])
            context = repeat_context(context, prod(shape))
        like = next(self.parameters(), torch.empty(0))
        dtype = torch.promote_types(like.dtype, torch.float32)
        z = self.base.sample((prod(batch), *event), temperature, generator, dtype=dtype, device=like.device)
        return batch, z, context
