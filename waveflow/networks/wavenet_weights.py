"""The weights of a causal WaveNet stack as loops over samples want them."""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from waveflow.networks.wavenet import WaveNetStack


class CausalWeights(NamedTuple):
    r"""What a causal stack computes, by dense, contiguous, input-major matrices. C channels, L layers, P outputs.

    With x and h zero before time 0, d the dilation of a layer and k its taps,

    .. code-block:: text

        h = first_bias + sum_j x[t - first_kernel + j] first[j]
        for each layer:
            g = gates_bias + c[t] condition[:, layer] + sum_j h[t - (k - 1 - j) d] gates[j]
            a, b = tanh(g[:C]), tanh(g[C:])
            m = mix_bias + (a + a b) mix
            h, s = residual h + m[:C], s + m[C:]
        y = post2_bias + s post2                      without ``post``
        y = post2_bias + relu(post1_bias + relu(s) post1) post2

    Weight norm is applied; the halves of sigmoid(b) = (1 + tanh(b / 2)) / 2, the scale of the skip sum and that of the
    residual are within the weights. Separable convolutions are multiplied out.

    Attributes:
        dilations: of each layer, (L,) int64.
        first: (first_kernel, C), the last row for the newest number.
        first_bias: (C,).
        gates: (L, k, C, 2C), the last tap for what is now.
        gates_bias: (L, 2C), that of the condition included.
        condition: (context_channels, L * 2C): one product for all layers; (0, L * 2C) without context.
        mix: (L, C, 2C), [residual | skip]; the residual half of the last layer, which nothing reads, is zero.
        mix_bias: (L, 2C).
        residual: what h is multiplied by at the end of a layer.
        post1: (C, C), or None.
        post1_bias: (C,), or None.
        post2: (C, P).
        post2_bias: (P,).
    """

    dilations: Tensor
    first: Tensor
    first_bias: Tensor
    gates: Tensor
    gates_bias: Tensor
    condition: Tensor
    mix: Tensor
    mix_bias: Tensor
    residual: float
    post1: Tensor | None
    post1_bias: Tensor | None
    post2: Tensor
    post2_bias: Tensor


@torch.no_grad()
def pack(stack: "WaveNetStack", dtype: torch.dtype) -> CausalWeights:
    """The weights of a causal stack, multiplied out in float64 and given in ``dtype``, on the stack's device."""
    c, count = stack.channels, len(stack.layers)
    like = stack.output.weight.double()
    halves = torch.ones(2 * c, dtype=torch.float64, device=like.device)
    halves[c:] = 0.5
    factors = torch.full((2 * c,), stack.residual_scale, dtype=torch.float64, device=like.device)
    factors[c:] = stack.skip_scale
    gates, gates_bias, condition, mix, mix_bias, dilations = [], [], [], [], [], []
    for layer in stack.layers:
        weight, bias = layer.gates.weight.double(), layer.gates.bias.double()
        convolution = layer.gates
        if layer.depthwise is not None:
            convolution = layer.depthwise
            bias = bias + weight[:, :, 0] @ convolution.bias.double()
            weight = weight * convolution.weight.double().transpose(0, 1)
        dilations.append(convolution.dilation[0])
        if layer.condition is not None:
            bias = bias + layer.condition.bias.double()
            condition.append(layer.condition.weight[:, :, 0].double().t() * halves)
        gates.append(weight.permute(2, 1, 0) * halves)
        gates_bias.append(bias * halves)
        missing = 2 * c - layer.mix.out_channels
        mix.append(F.pad(0.5 * layer.mix.weight[:, :, 0].double(), (0, 0, missing, 0)).t() * factors)
        mix_bias.append(F.pad(layer.mix.bias.double(), (missing, 0)) * factors)
    nothing = like.new_zeros(0, 2 * c * count)
    tensors = {
        "first": stack.input.weight[:, 0].double().t(),
        "first_bias": stack.input.bias,
        "gates": torch.stack(gates),
        "gates_bias": torch.stack(gates_bias),
        "condition": torch.cat(condition, 1) if condition else nothing,
        "mix": torch.stack(mix),
        "mix_bias": torch.stack(mix_bias),
        "post1": None if stack.post is None else stack.post.weight[:, :, 0].t(),
        "post1_bias": None if stack.post is None else stack.post.bias,
        "post2": like[:, :, 0].t(),
        "post2_bias": stack.output.bias,
    }
    tensors = {name: None if t is None else t.detach().to(dtype).contiguous() for name, t in tensors.items()}
    return CausalWeights(
        dilations=torch.tensor(dilations, device=like.device), residual=stack.residual_scale, **tensors
    )
