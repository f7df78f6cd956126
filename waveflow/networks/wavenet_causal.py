"""A causal WaveNet stack for inference: all samples at once, from packed weights."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.context import Context, Ragged
from waveflow.networks.causal_convolution import convolve_causally
from waveflow.networks.compile_choice import Kept
from waveflow.networks.convolution import convolve, to_channels_last
from waveflow.networks.wavenet_stepper import WaveNetStepper
from waveflow.networks.wavenet_stream import WaveNetStream, begin_stream
from waveflow.networks.wavenet_weights import CausalWeights

if TYPE_CHECKING:
    from waveflow.networks.compiled_stream import CompiledStream
    from waveflow.networks.wavenet import WaveNetStack


class FoldedCausalStack(nn.Module):
    """What a causal :class:`~waveflow.networks.WaveNetStack` computes, from its packed weights.

    The passes over all samples and blocks of them (``stream``) compute in ``dtype``, with sums of skips and the end in
    float32 at least; ``packed`` and ``stepper`` keep the precision of the stack. Frozen; same calls and results as the
    stack, to rounding.
    """

    causal = True

    def __init__(self, stack: "WaveNetStack", dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.out_channels, self.channels = stack.out_channels, stack.channels
        self.context_channels = self.context = stack.context_channels
        self.event_shape, self.reach = stack.event_shape, stack.reach
        weights = stack.packed()
        self.dilations, self.residual = weights.dilations.tolist(), weights.residual
        self._kept = Kept()
        for name, tensor in weights._asdict().items():
            if name not in ("residual", "dilations"):
                self._freeze(f"packed_{name}", tensor)
        self.register_buffer("packed_dilations", weights.dilations)
        # As gated() has it, but with 2 a for -2 a. Not in half precision, which cannot tell sigmoid(2 a) from 1/2 where
        # a is small.
        self.by_sigmoid = dtype in (torch.float32, torch.float64)
        into, out = (2, -2) if self.by_sigmoid else (1, 1)
        mixes, biases = out * weights.mix.double(), weights.mix_bias.double()
        if weights.post1 is None:  # the end is linear: each layer's skip goes through it at once
            end, c = weights.post2.double(), self.channels
            mixes = torch.cat([mixes[..., :c], mixes[..., c:] @ end], 2)
            biases = torch.cat([biases[:, :c], biases[:, c:] @ end], 1)
        self._freeze("gates_bias", into * weights.gates_bias.to(dtype))
        self._freeze("mix_bias", biases.to(dtype))
        layers = zip(weights.gates, weights.condition.chunk(len(weights.gates), 1), mixes, strict=True)
        for i, (gates, condition, mix) in enumerate(layers):
            self._store(f"gates{i}", into * gates.permute(2, 1, 0))
            self._store(f"condition{i}", into * condition.t()[:, :, None])
            self._store(f"mix{i}", mix.t()[:, :, None])

    def _store(self, name: str, weight: Tensor) -> None:
        weight = weight.to(self.dtype).unsqueeze(2).contiguous(memory_format=torch.channels_last)
        self._freeze(name, weight)

    def _freeze(self, name: str, weight: Tensor | None) -> None:
        self.register_parameter(name, None if weight is None else nn.Parameter(weight, requires_grad=False))

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        values = context.values if isinstance(context, Ragged) else context
        if self.context_channels:
            values = to_channels_last(values[..., : x.shape[-1]].to(self.dtype))
        w = self.packed()
        first = w.first.t()[:, None, None]
        h = convolve_causally(to_channels_last(x.to(first.dtype)), first, w.first_bias, strict=True).to(self.dtype)
        skips = 0
        for i, dilation in enumerate(self.dilations):
            gates = convolve_causally(h, getattr(self, f"gates{i}"), self.gates_bias[i], dilation)
            if self.context_channels:
                gates.add_(convolve(values, getattr(self, f"condition{i}"), None))
            if self.by_sigmoid:
                u, v = gates.sigmoid_().chunk(2, 1)
                activation = torch.addcmul(v, u, v, value=-2)
            else:
                a, b = gates.tanh_().chunk(2, 1)
                activation = torch.addcmul(a, a, b)
            mixed = convolve(activation, getattr(self, f"mix{i}"), self.mix_bias[i])
            residual, skip = mixed[:, : self.channels], mixed[:, self.channels :]
            skips = skips + skip.to(first.dtype)
            if i < len(self.dilations) - 1:
                h = h.add_(residual) if self.residual == 1 else torch.add(residual, h, alpha=self.residual)
        if w.post1 is None:
            return skips + w.post2_bias[:, None, None]
        skips = F.relu(convolve(F.relu(skips), w.post1.t()[:, :, None, None], w.post1_bias))
        return convolve(skips, w.post2.t()[:, :, None, None], w.post2_bias)

    def packed(self, dtype: torch.dtype | None = None) -> CausalWeights:
        """As of the stack."""
        values = {name: getattr(self, f"packed_{name}") for name in CausalWeights._fields if name != "residual"}
        if dtype is not None:
            values = {n: t if t is None or not t.is_floating_point() else t.to(dtype) for n, t in values.items()}
        return CausalWeights(residual=self.residual, **values)

    def stepper(self, batch: int, context: Context = None) -> WaveNetStepper:
        """As of the stack."""
        return WaveNetStepper(self.packed(), batch, context)

    def stream(self, batch: int) -> "WaveNetStream | CompiledStream":
        """As of the stack."""
        return begin_stream(self.packed(), batch, self.dtype, self._kept)
