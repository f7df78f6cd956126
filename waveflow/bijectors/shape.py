"""Maps that rearrange elements: folding positions into channels, and factoring channels out."""

from collections.abc import Iterable, Sequence
from math import prod

import torch
from torch import Tensor, nn

from waveflow.bijectors.base import Bijector, zero_log_det
from waveflow.context import Context


class Squeeze(Bijector):
    """Fold neighbouring positions into channels.

    Channel ``c * factor + i`` of a squeezed signal is sample ``i`` of each group of channel c (WaveGlow's grouping for
    C = 1); of an image, channel ``c * factor**2 + i * factor + j`` is pixel (i, j) of each square.

    Args:
        factor: samples a group, or side of the square.
        dims: 1 for signals (B, C, T), 2 for images (B, C, H, W).

    Shape:
        ``(B, C, T)`` to ``(B, C * factor, T / factor)``; ``(B, C, H, W)`` to ``(B, C * factor**2, H / factor, W /
        factor)``.

    Raises:
        ValueError: for other ``dims``, and in both directions if the events cannot be divided.
    """

    constant_log_det = True

    def __init__(self, factor: int = 2, dims: int = 2):
        super().__init__()
        if dims not in (1, 2):
            raise ValueError(f"Squeeze expects dims 1 or 2, got {dims}")
        if factor < 1:
            raise ValueError(f"Squeeze expects a positive factor, got {factor}")
        self.factor, self.dims = factor, dims

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        f = self.factor
        if self.dims == 1:
            batch, channels, length = x.shape
            z = x.reshape(batch, channels, length // f, f).transpose(2, 3)
            z = z.reshape(batch, channels * f, length // f)
        else:
            batch, channels, height, width = x.shape
            z = x.reshape(batch, channels, height // f, f, width // f, f).permute(0, 2, 4, 1, 3, 5)
            # Channels innermost in memory: what convolutions want that follow.
            z = z.reshape(batch, height // f, width // f, channels * f**2).permute(0, 3, 1, 2)
        return z, zero_log_det(x)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        f = self.factor
        if self.dims == 1:
            batch, channels, groups = z.shape
            x = z.reshape(batch, channels // f, f, groups).transpose(2, 3)
            return x.reshape(batch, channels // f, groups * f), zero_log_det(z)
        batch, channels, rows, columns = z.shape
        x = z.reshape(batch, channels // f**2, f, f, rows, columns).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(batch, channels // f**2, rows * f, columns * f), zero_log_det(z)

    def output_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        expected = self.expects(event, inverse=False)
        if expected is not None:
            raise ValueError(f"Squeeze expects {expected}, got {event}")
        return (event[0] * self.factor**self.dims, *(n // self.factor for n in event[1:]))

    def expects(self, event: tuple[int, ...], inverse: bool) -> str | None:
        f = self.factor
        axes = "length" if self.dims == 1 else "height and width"
        if len(event) != self.dims + 1:
            return f"channels, {axes}"
        if inverse:
            return None if event[0] % f**self.dims == 0 else f"channels divisible by {f**self.dims}"
        return None if all(n % f == 0 for n in event[1:]) else f"{axes} divisible by {f}"


class Flatten(Bijector):
    """Lay the numbers of an event, an image's say, in one row.

    Args:
        event_shape: of the events, (C, H, W).

    Shape:
        ``(B, *event_shape)`` to ``(B, D)``, in the order of memory: channel by channel, row by row.
    """

    constant_log_det = True

    def __init__(self, event_shape: Sequence[int]):
        super().__init__()
        self.event_shape = tuple(event_shape)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return x.flatten(1), zero_log_det(x)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return z.unflatten(1, self.event_shape), zero_log_det(z)

    def output_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return (prod(event),)

    def expects(self, event: tuple[int, ...], inverse: bool) -> str | None:
        if not inverse:
            return super().expects(event, inverse)
        size = prod(self.event_shape)
        return None if event == (size,) else f"events of shape ({size},)"


class MultiScale(Bijector):
    """Levels of a flow, between which some channels leave and become latents at once.

    After every level but the last, the first ``factor_out`` channels of its output are done; the next level
    transforms the rest. The latents are laid back beside each other: z has the shape of the first level's output, its
    first channels being the ones that left first, and behind them, in the same way, the latents of all further levels,
    reshaped to the channels that are left (RealNVP: arXiv:1605.08803, section 3.6; WaveGlow: arXiv:1811.00002,
    section 2.3).

    Args:
        levels: bijectors; a level may change the shape, as ``Squeeze`` does.
        factor_out: number of channels that leave after each level but the last.

    Shape:
        ``(B, C, ...)`` to ``(B, *levels[0].output_shape((C, ...)))``.

    Raises:
        ValueError: if the two lists do not fit, and in both directions if a level has no more channels than have to
            leave.
    """

    def __init__(self, levels: Iterable[Bijector], factor_out: Sequence[int]):
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.factor_out = tuple(factor_out)
        if len(self.factor_out) != len(self.levels) - 1:
            raise ValueError(
                f"MultiScale expects a number of channels to factor out after each of {len(self.levels)} levels "
                f"but the last, got {self.factor_out}"
            )
        self.constant_log_det = all(level.constant_log_det for level in self.levels)
        self.needs_context = any(level.needs_context for level in self.levels)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        log_det = zero_log_det(x)
        latents = []
        for level, leaving in zip(self.levels, (*self.factor_out, None), strict=True):
            x, term = level(x, context)
            log_det = log_det + term
            if leaving is not None:
                self._require_channels(tuple(x.shape[1:]), leaving)
                latents.append(x[:, :leaving])
                x = x[:, leaving:]
        return self.merge([*latents, x]), log_det

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        latents = self.split(z)
        x = latents.pop()
        log_det = zero_log_det(z)
        for level in reversed(self.levels):
            x, term = level.inverse(x, context)
            log_det = log_det + term
            if latents:
                x = torch.cat([latents.pop(), x], 1)
        return x, log_det

    def split(self, z: Tensor) -> list[Tensor]:
        """The latents of each level, in the order they left, each in its own shape."""
        latents = []
        for level, leaving in zip(self.levels[1:], self.factor_out, strict=True):
            self._require_channels(tuple(z.shape[1:]), leaving)
            latents.append(z[:, :leaving])
            z = z[:, leaving:]
            z = z.reshape(z.shape[0], *level.output_shape(tuple(z.shape[1:])))
        return [*latents, z]

    def merge(self, latents: Sequence[Tensor]) -> Tensor:
        """The inverse of :meth:`split`."""
        *earlier, z = latents
        for latent in reversed(earlier):
            positions = latent.shape[2:]
            channels = prod(z.shape[1:]) // max(1, prod(positions))
            z = torch.cat([latent, z.reshape(z.shape[0], channels, *positions)], 1)
        return z

    def output_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return self.levels[0].output_shape(event)

    def expects(self, event: tuple[int, ...], inverse: bool) -> str | None:
        return None if inverse else self.levels[0].expects(event, inverse)

    def _require_channels(self, event: tuple[int, ...], leaving: int) -> None:
        if event[0] <= leaving:
            raise ValueError(f"MultiScale expects more than {leaving} channels to factor {leaving} out, got {event}")
