"""A causal WaveNet stack run block by block in compiled code."""

import torch
import torch.nn.functional as F
from torch import Tensor

from waveflow.kernels.wavenet_layers import LayerWeights, pack_layers
from waveflow.networks.compiled_layers import CompiledLayers
from waveflow.networks.upsample import Knots
from waveflow.networks.wavenet_stream import check_block
from waveflow.networks.wavenet_weights import CausalWeights


class CompiledStream:
    """What :class:`~waveflow.networks.WaveNetStream` computes, to rounding, on a CPU in float32.

    Args:
        weights: of the stack.
        layers: the same, packed by :func:`pack_stream`.
        batch: B.

    Attributes:
        compiled: True.
    """

    compiled = True

    def __init__(self, weights: CausalWeights, layers: LayerWeights, batch: int):
        self._weights, self._layers = weights, CompiledLayers(layers, batch)
        self._heard = weights.first.new_zeros(batch, len(weights.first))

    @torch.no_grad()
    @torch.autocast("cpu", enabled=False)
    def push(self, x: Tensor, context: Tensor | Knots | None = None) -> Tensor:
        """As of :class:`~waveflow.networks.WaveNetStream`; a context that is linear between frames is told by them."""
        w, length = self._weights, x.shape[-1]
        check_block(w, len(self._heard), x, context)
        heard = torch.cat([self._heard, x[:, 0].float()], 1)
        self._heard = heard[:, length:]
        before = heard[:, :-1].unfold(1, len(w.first), 1)
        torch.add(before @ w.first, w.first_bias, out=self._layers.inputs(length, w.first.shape[1]))
        skips = self._layers(length, context)
        if w.post1 is None:
            out = skips[..., : w.post2.shape[1]]
        else:
            out = F.relu(F.relu(skips[..., : len(w.post1)]) @ w.post1 + w.post1_bias) @ w.post2 + w.post2_bias
        return out.transpose(1, 2).unsqueeze(2)


def pack_stream(weights: CausalWeights) -> LayerWeights:
    """The weights of a stack as compiled layers want them; without ``post``, each skip goes through the end at once."""
    c = weights.gates.shape[2]
    values = {k: v.double().numpy(force=True) for k, v in weights._asdict().items() if isinstance(v, Tensor)}
    mix, bias = values["mix"], values["mix_bias"]
    skip, skip_bias = mix[..., c:], bias[:, c:].sum(0)
    if weights.post1 is None:
        skip, skip_bias = skip @ values["post2"], skip_bias @ values["post2"] + values["post2_bias"]
    return pack_layers(
        gates=values["gates"],
        gates_bias=values["gates_bias"],
        condition=values["condition"],
        mix=mix[..., :c],
        mix_bias=bias[:, :c],
        skip=skip,
        skip_bias=skip_bias,
        dilations=weights.dilations.numpy(force=True),
        residual=weights.residual,
        causal=True,
    )
