"""A causal WaveNet stack for inference: all samples at once, from packed weights."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.context import Context, Ragged
from waveflow.networks.causal_convolution import convolve_causally
from waveflow.networks.convolution import convolve, to_channels_last
from waveflow.networks.wavenet_stepper import WaveNetStepper
from waveflow.networks.wavenet_weights import CausalWeights

if TYPE_CHECKING:
    from waveflow.networks.wavenet import WaveNetStack


class FoldedCausalStack(nn.Module):
    """What a causal :class:`~waveflow.networks.WaveNetStack` computes, from its packed weights.

    The passes over all samples compute in ``dtype``, with sums of skips and the end in float32 at least; ``packed`` and
    ``stepper`` keep the precision of the stack. Frozen; same calls and results as the stack, to rounding.
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
        for name, tensor in weights._asdict().items():
            if name not in ("residual", "dilations"):
                self._freeze(f"packed_{name}", tensor)
        self.register_buffer("packed_dilations", weights.dilations)
        layers = zip(weights.gates, weights.condition.chunk(len(weights.gates), 1), weights.mix, strict=True)
        for i, (gates, condition, mix) in enumerate(layers):
            self._store(f"gates{i}", gates.permute(2, 1, 0))
            self._store(f"condition{i}", condition.t()[:, :, None])
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
            bias = w.gates_bias[i].to(self.dtype)
            gates = convolve_causally(h, getattr(self, f"gates{i}"), bias, dilation)
            if self.context_channels:
                gates = gates + convolve(values, getattr(self, f"condition{i}"), None)
            a, b = torch.tanh(gates).chunk(2, 1)
            mixed = convolve(torch.addcmul(a, a, b), getattr(self, f"mix{i}"), w.mix_bias[i].to(self.dtype))
            residual, skip = mixed.chunk(2, 1)
            skips = skips + skip.to(first.dtype)
            h = h + residual if self.residual == 1 else torch.add(residual, h, alpha=self.residual)
        if w.post1 is not None:
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
