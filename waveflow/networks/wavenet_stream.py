"""A causal WaveNet stack run block by block, so that what its layers hand on stays in a processor's caches."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from waveflow.networks.compile_choice import Kept, has_wide_vectors
from waveflow.networks.convolution import convolve
from waveflow.networks.upsample import Knots
from waveflow.networks.wavenet_weights import CausalWeights

if TYPE_CHECKING:
    from waveflow.networks.compiled_stream import CompiledStream


def begin_stream(
    weights: CausalWeights, batch: int, dtype: torch.dtype | None = None, kept: Kept | None = None
) -> "WaveNetStream | CompiledStream":
    """A stream of B waveforms, compiled where that can be had: in float32 on a CPU with AVX-512.

    Args:
        weights: of the stack.
        batch: B.
        dtype: of the products, None for that of the weights.
        kept: what keeps the weights packed from one stream to the next.
    """
    if {weights.gates.dtype, dtype or torch.float32} != {torch.float32} or not has_wide_vectors(weights.gates):
        return WaveNetStream(weights, batch, dtype)
    from waveflow.networks.compiled_stream import CompiledStream, pack_stream  # numba takes half a second to import

    tensors = [t for t in weights if isinstance(t, Tensor)]
    return CompiledStream(weights, (kept or Kept())(tensors, lambda: pack_stream(weights)), batch)


class WaveNetStream:
    r"""The function of a causal stack, one block of samples at a time, without gradients.

    Each layer keeps the end of its input, as far back as its taps reach, so nothing is computed twice and memory does
    not grow with the length. A layer is two matrix products: of its input at all taps, beside the context, and of
    the activations. The first layer, whose input is linear in the few numbers heard, takes those and a one instead.

    Args:
        weights: of the stack.
        batch: B.
        dtype: of the products, None for that of the weights; gates, sums of skips and the end have the latter.

    Attributes:
        compiled: False.
    """

    compiled = False

    def __init__(self, weights: CausalWeights, batch: int, dtype: torch.dtype | None = None):
        w = self._weights = weights
        dtype = dtype or w.first.dtype
        count, taps, channels, _ = w.gates.shape
        entry = torch.cat([w.first, w.first_bias[None]]).double()
        inputs = [entry @ w.gates[0].double(), *w.gates[1:].double()]
        condition = w.condition.double().chunk(count, 1)
        # The gate as gated() has it, with 2 a for -2 a.
        self._gates = [
            _as_convolution(2 * torch.cat([*of_taps, c]), dtype) for of_taps, c in zip(inputs, condition, strict=True)
        ]
        self._gates_bias = (2 * w.gates_bias).to(dtype)
        mixes, biases = -2 * w.mix.double(), w.mix_bias.double()
        if w.post1 is None:  # the end is linear: each layer's skip goes through it at once
            end = w.post2.double()
            mixes = torch.cat([mixes[..., :channels], mixes[..., channels:] @ end], 2)
            biases = torch.cat([biases[:, :channels], biases[:, channels:] @ end], 1)
        self._mixes = [_as_convolution(mix, dtype) for mix in (*mixes[:-1], mixes[-1, :, channels:])]
        self._mix_biases = [bias.to(dtype) for bias in (*biases[:-1], biases[-1, channels:])]
        self._lags = [[(taps - 1 - j) * d for j in range(taps)] for d in w.dilations.tolist()]
        widths = [len(entry)] + [channels] * (count - 1)
        new = partial(w.first.new_zeros, dtype=dtype)
        self._past = [new(batch, lags[0], width) for lags, width in zip(self._lags, widths, strict=True)]
        self._heard = w.first.new_zeros(batch, len(w.first))
        self._first, self._rest = (_Rows(new, batch, taps, width, len(w.condition)) for width in (len(entry), channels))

    @torch.no_grad()
    def push(self, x: Tensor, context: Tensor | Knots | None = None) -> Tensor:
        """Parameters of the next samples, given these samples: those of each follow from what is before it.

        Args:
            x: (B, 1, n).
            context: (B, context_channels, n), or frames between which it is linear; None for a stack without.

        Returns:
            (B, P, 1, n), in the dtype of the weights.

        Raises:
            ValueError: for samples that are none, or not (B, 1, n); for a context that is missing or does not fit.
        """
        w, length, channels = self._weights, x.shape[-1], self._weights.gates.shape[2]
        check_block(w, len(self._heard), x, context)
        context = context.interpolated() if isinstance(context, Knots) else context
        self._first.begin(length, context)
        self._rest.begin(length, context)
        h = self._rest.now
        with torch.autocast(x.device.type, enabled=False):
            self._hear(x[:, 0])
            skips = 0
            for i, lags in enumerate(self._lags):
                rows = self._rest if i else self._first
                self._past[i] = rows.look_back(self._past[i], lags)
                gates = _product(rows.values, self._gates[i], self._gates_bias[i])
                u, v = gates.to(w.first.dtype).sigmoid_().chunk(2, 2)
                activation = torch.addcmul(v, u, v, value=-2).to(h.dtype)
                mixed = _product(activation, self._mixes[i], self._mix_biases[i])
                if i < len(self._lags) - 1:
                    torch.add(mixed[..., :channels], h, alpha=w.residual, out=h)
                    mixed = mixed[..., channels:]
                skips = skips + mixed.to(w.first.dtype)
            if w.post1 is not None:
                skips = F.relu(F.relu(skips) @ w.post1 + w.post1_bias) @ w.post2
            return (skips + w.post2_bias).transpose(1, 2).unsqueeze(2)

    def _hear(self, x: Tensor) -> None:
        w = self._weights
        heard = torch.cat([self._heard, x.to(self._heard.dtype)], 1)
        self._heard = heard[:, x.shape[1] :]
        window = heard[:, :-1].unfold(1, len(w.first), 1)  # the numbers before each
        self._rest.now.copy_(window @ w.first + w.first_bias)
        self._first.now.copy_(torch.cat([window, torch.ones_like(window[..., :1])], 2))


def check_block(weights: CausalWeights, batch: int, x: Tensor, context: Tensor | Knots | None) -> None:
    """Require samples (B, 1, n) and their context.

    Raises:
        ValueError: if there are none, or they do not fit.
    """
    length = x.shape[-1]
    if x.shape != (batch, 1, length) or not length:
        raise ValueError(f"a stream expects samples ({batch}, 1, n), got {tuple(x.shape)}")
    known = (batch, len(weights.condition), length)
    if known[1] and (context is None or context.shape != known):
        got = None if context is None else tuple(context.shape)
        raise ValueError(f"a stream expects a context {known}, got {got}")


class _Rows:
    """Inputs of layers (B, n, C) at their taps, the oldest first, beside the context."""

    def __init__(self, new: Callable[..., Tensor], batch: int, taps: int, channels: int, context_channels: int):
        self._channels, self._taps, self._context_channels = channels, taps, context_channels
        self.values = new(batch, 0, taps * channels + context_channels)

    def begin(self, length: int, context: Tensor | None) -> None:
        """For so many samples, with this context (B, context_channels, n)."""
        if self.values.shape[1] != length:
            batch, _, width = self.values.shape
            self.values = self.values.new_empty(batch, length, width)
            taps = self.values[..., : self._taps * self._channels].split(self._channels, 2)
            self._older, self.now = taps[:-1], taps[-1]
        if self._context_channels:
            self.values[..., -self._context_channels :].copy_(context.transpose(1, 2))

    def look_back(self, past: Tensor, lags: list[int]) -> Tensor:
        """Fill in the older taps of what is ``now``, given what was before; the new past."""
        length = self.now.shape[1]
        for rows, lag in zip(self._older, lags[:-1], strict=True):
            begin, known = past.shape[1] - lag, min(lag, length)
            rows[:, :known] = past[:, begin : begin + known]
            rows[:, known:] = self.now[:, : length - known]
        if length >= past.shape[1]:
            return past.copy_(self.now[:, length - past.shape[1] :])
        return torch.cat([past[:, length:], self.now], 1)


def _as_convolution(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    return matrix.t().to(dtype).contiguous()[:, :, None, None]


def _product(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Rows (B, n, in) times a matrix, its weight (out, in, 1, 1).

    In float32 by way of a convolution: PyTorch has two libraries for products on a CPU, of which that for convolutions
    is as fast on processors of all makers.
    """
    if rows.dtype != torch.float32:
        return torch.addmm(bias, rows.flatten(0, 1), weight[:, :, 0, 0].t()).unflatten(0, rows.shape[:2])
    return convolve(rows.transpose(1, 2).unsqueeze(2), weight, bias).squeeze(2).transpose(1, 2)
