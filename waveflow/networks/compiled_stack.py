"""A non-causal WaveNet stack in compiled code: what WaveGlow's couplings are conditioned by."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from waveflow.kernels.wavenet_layers import LayerWeights, pack_layers
from waveflow.networks.compiled_layers import CompiledLayers

if TYPE_CHECKING:
    from waveflow.networks.wavenet import FoldedWaveNetStack


def run_stack(
    stack: "FoldedWaveNetStack", layers: LayerWeights, x: Tensor, context: Tensor | None, mask: Tensor | None
) -> Tensor:
    """What a folded stack computes, to rounding, on a CPU in float32.

    Args:
        stack: without depthwise convolutions.
        layers: its layers, packed by :func:`pack_stack`.
        x: (B, in_channels, T).
        context: (B, context_channels, T), or None.
        mask: (B, 1, T), 1 up to each utterance's end, or None.

    Returns:
        (B, out_channels, T).
    """
    batch, _, length = x.shape
    work, weight = CompiledLayers(layers, batch), stack.input_weight[:, :, 0, 0].t()
    lengths = None if mask is None else mask.long().sum((1, 2))
    h = torch.add(x.transpose(1, 2) @ weight, stack.input_bias, out=work.inputs(length, weight.shape[1]))
    if mask is not None:
        h.mul_(mask.transpose(1, 2))
    return work(length, context, lengths)[..., : len(stack.output_bias)].transpose(1, 2)


def pack_stack(stack: "FoldedWaveNetStack") -> LayerWeights:
    """The layers of a folded stack as compiled ones want them."""
    layers = range(len(stack.dilations))
    channels, outputs = stack.input_weight.shape[0], len(stack.output_bias)
    # The folded gate is tanh(a) sigmoid(b) of [-2 a | b]; the compiled one wants half of b and gives twice as much.
    factors = torch.tensor([-0.5, 0.5], dtype=torch.float64, device="cpu").repeat_interleave(channels)

    def weight(name: str, i: int) -> Tensor:
        return getattr(stack, f"{name}{i}_weight")[:, :, 0].double()

    gates = torch.stack([weight("gates", i).permute(2, 1, 0) * factors for i in layers])
    gates_bias = torch.stack([getattr(stack, f"gates{i}_bias").double() * factors for i in layers])
    condition = gates.new_zeros(0, len(layers) * 2 * channels)
    if stack.context_channels:
        condition = torch.cat([weight("condition", i)[:, :, 0].t() * factors for i in layers], 1)
    mixes = [0.5 * weight("mix", i)[:, :, 0].t() for i in layers]
    biases = [getattr(stack, f"mix{i}_bias").double() for i in layers]
    last = gates.new_zeros(channels, channels + outputs)  # the last layer hands on nothing
    last[:, channels:] = mixes[-1]
    biases[-1] = gates.new_zeros(channels + outputs)
    mix = torch.stack([*mixes[:-1], last])
    return pack_layers(
        gates=gates.numpy(),
        gates_bias=gates_bias.numpy(),
        condition=condition.numpy(),
        mix=mix[..., :channels].numpy(),
        mix_bias=torch.stack(biases)[:, :channels].numpy(),
        skip=mix[..., channels:].numpy(),
        skip_bias=stack.output_bias.double().flatten().numpy(),
        dilations=np.array(stack.dilations),
        residual=1.0,
        causal=False,
    )
