"""What a flow is conditioned on."""

from typing import NamedTuple

import torch
from torch import Tensor


class Ragged(NamedTuple):
    """A batch of sequences of different lengths, padded to one shape.

    ``values`` is (B, C, L); ``mask`` is (B, 1, L) of the same dtype, 1 inside each sequence and 0 behind its end.
    For synthesis: a flow gives no densities of padded batches. Networks that understand it keep the padding at zero in
    every layer, so that an item is treated as if it were alone.
    """

    values: Tensor
    mask: Tensor

    @classmethod
    def from_lengths(cls, values: Tensor, lengths: Tensor) -> "Ragged":
        """Mask ``values`` (B, C, L) behind ``lengths`` (B,), given in steps of L."""
        positions = torch.arange(values.shape[-1], device=values.device)
        mask = (positions < lengths.to(values.device)[:, None]).to(values.dtype)[:, None]
        return cls(values * mask, mask)


Context = Tensor | Ragged | None


def repeat_context(context: Context, times: int) -> Context:
    """The whole batch ``times`` times, one after the other: (B, ...) to (times * B, ...)."""
    if context is None or times == 1:
        return context
    if isinstance(context, Ragged):
        return Ragged(repeat_context(context.values, times), repeat_context(context.mask, times))
    return context.repeat(times, *[1] * (context.ndim - 1))
